"""The decisions of the claim, hold, settle and lease protocol, as pure functions.

The simulation (`tests/simulation`) calls all of them, and production code calls those that decide outside of SQL. The
store states the same rules once more as compare-and-set conditions; its conformance suite walks all pairs of state and
request to show that the two agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import assert_never

from .job import JobState
from .outcome import Cancelled, Failed, Interrupted, Outcome, Retrying, Snoozed, Succeeded, Unhandled


@dataclass(frozen=True, slots=True)
class Owner:
    """The worker that holds a running job's claim, as its row says."""

    worker_id: str
    lease_until: datetime
    known_dead: bool = False
    """Its process is known to be gone (same host, no such process); the lease need not run out."""


@dataclass(frozen=True, slots=True)
class RowView:
    """The columns of a job's row that a claim depends on."""

    state: JobState
    dispatch: int
    owner: Owner | None = None
    """Set exactly when the state is ``running``; ``None`` for a running row means that its worker's row is gone."""


class Verdict(StrEnum):
    """What to do with a delivery."""

    GRANT = "grant"
    """Run it: the claim is made."""
    TAKE_OVER = "take_over"
    """Its worker is lost: count a crash, then run it (or fail it, see `survives_crash`)."""
    HOLD = "hold"
    """It runs elsewhere under a live lease: keep the delivery unacked, as the safety copy, and look again."""
    ADOPT = "adopt"
    """There is no row and none was promised: make one, then run it."""
    PARK = "park"
    """It waits for its turn in its group, in its row or in its lane: ack."""
    DROP_FINAL = "drop_final"
    """The job has ended, or its row is gone after it ended: ack and forget."""
    DROP_STALE = "drop_stale"
    """Another dispatch of the job is the valid one: ack and forget."""

    @property
    def drops(self) -> bool:
        """Whether the delivery is acknowledged without a run."""
        return self in (Verdict.DROP_FINAL, Verdict.DROP_STALE)


def judge(row: RowView | None, dispatch: int, now: datetime, *, promised: bool) -> Verdict:
    """Decide on a delivery that carries ``dispatch``, given its job's row.

    ``promised`` says that the producer stored a row when it sent (the envelope records it): then a missing
    row means that the job ended and was pruned, never that it is new.
    """
    if row is None:
        return Verdict.DROP_FINAL if promised else Verdict.ADOPT
    if row.state.is_final:
        return Verdict.DROP_FINAL
    if row.dispatch != dispatch:
        return Verdict.DROP_STALE
    if row.state is JobState.RUNNING:
        return Verdict.TAKE_OVER if owner_is_lost(row.owner, now) else Verdict.HOLD
    # In a group, too: a queued job holds one of its places, and one that has to wait is not queued (`turns`).
    if row.state is JobState.QUEUED:
        return Verdict.GRANT
    # scheduled, retrying, waiting, unhandled: whatever makes it runnable again takes a new dispatch number.
    return Verdict.DROP_STALE


def owner_is_lost(owner: Owner | None, now: datetime) -> bool:
    """Whether a running job's worker is lost: its row gone, its process known dead, or its lease over."""
    return owner is None or owner.known_dead or owner.lease_until <= now


def survives_crash(crashes: int, max_crashes: int) -> bool:
    """Whether a job whose worker was lost for the ``crashes``-th time may run again."""
    return crashes < max_crashes


def may_settle(state: JobState, row_token: int | None, run_token: int) -> bool:
    """The fence: only the run that still holds the claim may write an outcome. For tests: the store's fence is SQL."""
    return state is JobState.RUNNING and row_token == run_token


def state_after(outcome: Outcome) -> JobState:
    """The state that an outcome settles a running job in."""
    match outcome:
        case Succeeded():
            return JobState.SUCCEEDED
        case Failed():
            return JobState.FAILED
        case Retrying() | Snoozed():
            return JobState.RETRYING
        case Cancelled():
            return JobState.CANCELLED
        case Interrupted():
            return JobState.QUEUED
        case Unhandled():
            return JobState.UNHANDLED
        case _:
            assert_never(outcome)


def attempt_counts(outcome: Outcome) -> bool:
    """Whether an attempt with this outcome counts against the retry policy."""
    match outcome:
        case Succeeded() | Failed() | Retrying() | Cancelled():
            return True
        case Snoozed() | Interrupted() | Unhandled():
            return False
        case _:
            assert_never(outcome)
