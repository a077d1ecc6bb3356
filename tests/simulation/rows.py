"""Compare-and-sets on one row: what the store promises (store/port.py), built on production's decisions.

Each function is one transaction of the store: it happens entirely or not at all.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from jq_actors.model.claim_rules import Owner, RowView
from jq_actors.model.job import JobState
from jq_actors.model.outcome import (
    Cancelled,
    Failed,
    Failure,
    Interrupted,
    Outcome,
    Retrying,
    Snoozed,
    Succeeded,
    Unhandled,
)

from .changes import raise_dispatch, with_job
from .state import NOBODY, Ending, Job, Lease, Row, State, Worker, fresh_token, is_dead, lease_of
from .system import System

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EARLIER, LATER = NOW - timedelta(seconds=1), NOW + timedelta(seconds=1)

_FAILURE = Failure(None, "it failed")
OUTCOMES: dict[str, Outcome] = {
    Ending.SUCCEEDED: Succeeded(),
    Ending.FAILED: Failed(_FAILURE),
    Ending.RETRYING: Retrying(_FAILURE, timedelta(seconds=1)),
    Ending.SNOOZED: Snoozed(timedelta(seconds=1)),
    Ending.CANCELLED: Cancelled("by an operator"),
    Ending.INTERRUPTED: Interrupted(),
    Ending.UNHANDLED: Unhandled("no such actor"),
}
COUNTED = frozenset({Ending.SUCCEEDED, Ending.FAILED, Ending.RETRYING, Ending.CANCELLED})
"""What counts as an attempt, told a second time, for the checker to compare `attempt_counts` with."""


def view(system: System, state: State, row: Row, judge: Worker) -> RowView:
    """What ``judge`` sees of a row."""
    return RowView(row.state, row.dispatch, owner_of(system, state, row, judge))


def owner_of(system: System, state: State, row: Row, judge: Worker) -> Owner | None:
    """The owner of a running row, as ``judge`` sees it: leases become times."""
    if row.state is not JobState.RUNNING:
        return None
    lease = lease_of(state, row.owner)
    in_grace = judge.grace and system.contract.grace_after_own_lapse
    if lease is Lease.GONE:
        return Owner(row.owner, LATER) if in_grace else None
    known_dead = system.same_host and (is_dead(state, row.owner) or not system.contract.known_dead_is_dead)
    return Owner(row.owner, LATER if lease is Lease.LIVE or in_grace else EARLIER, known_dead)


def granted(state: State, index: int, job: Job, row: Row, worker: Worker) -> State:
    """The claim is made: ``row`` belongs to ``worker``, under a fresh token (`Row.token` of the new state)."""
    token = fresh_token(state, index)
    row = replace(row, state=JobState.RUNNING, token=token, owner=worker.id, attempt=row.attempt + 1)
    return with_job(state, index, replace(job, row=row, claim=token, outcomes=0))


def taken_from_owner(system: System, job: Job) -> Job:
    """A lost worker's job is queued again, or failed when that happened too often."""
    assert job.row is not None
    row = replace(job.row, token=0, owner=NOBODY)
    if system.contract.counts_crashes:
        row = replace(row, crashes=row.crashes + 1)
    if system.decisions.survives_crash(row.crashes, system.max_crashes):
        published = row.published and not system.contract.recovered_is_unpublished
        row = replace(row, state=JobState.QUEUED, published=published, publisher=NOBODY)
    else:
        row = replace(row, state=JobState.FAILED)
    return replace(job, row=row, claim=0, lost=job.lost + 1, counted=job.counted + 1)


def given_back(job: Job) -> Job:
    """A claim that its worker never learned of is undone."""
    assert job.row is not None
    row = replace(job.row, state=JobState.QUEUED, token=0, owner=NOBODY, attempt=job.row.attempt - 1)
    return replace(job, row=replace(row, published=False, publisher=NOBODY), claim=0)


def settled(system: System, job: Job, token: int, ending: str, *, republish: bool) -> Job | None:
    """The outcome is written; ``None``: refused, the run does not hold the claim."""
    row = job.row
    if row is None or not system.decisions.may_settle(row.state, row.token, token):
        return None
    outcome = OUTCOMES[ending]
    attempt = row.attempt if system.decisions.attempt_counts(outcome) else row.attempt - 1
    after = replace(row, state=system.decisions.state_after(outcome), token=0, owner=NOBODY, attempt=attempt)
    if republish:
        after = replace(after, published=False, publisher=NOBODY)
    held = token == job.claim
    return replace(
        job,
        row=after,
        outcomes=job.outcomes + held,
        strays=job.strays + (not held),
        counted=job.counted + (ending in COUNTED),
    )


def requeued_with_next_dispatch(system: System, state: State, index: int, publisher: str) -> State:
    """Due, or offered again: queued under the next dispatch number, so that no older copy ever runs."""
    state = raise_dispatch(state, index)
    job = state.jobs[index]
    assert job.row is not None
    published = job.row.published and not system.contract.raised_is_unpublished
    row = replace(job.row, state=JobState.QUEUED, published=published, publisher=publisher)
    return with_job(state, index, replace(job, row=row))
