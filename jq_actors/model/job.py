"""What a job is: its identity, its states, and the one table of legal transitions.

The store states each transition once more, as a compare-and-set in SQL. Tests check its SQL against this table.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NewType

from jq_actors.clock import Clock

JobId = NewType("JobId", str)
"""The identity of a job: a UUID in its canonical text form. Ours are version 7, so they sort by time."""


class JobState(StrEnum):
    """The stored state of a job. Six are unfinished, four are final."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    WAITING = "waiting"
    RUNNING = "running"
    RETRYING = "retrying"
    UNHANDLED = "unhandled"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"

    @property
    def is_final(self) -> bool:
        """Whether nothing but an operator changes this state any more."""
        return self in FINAL_STATES


FINAL_STATES = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.SUPERSEDED})
UNFINISHED_STATES = frozenset(JobState) - FINAL_STATES

_S = JobState
TRANSITIONS: frozenset[tuple[JobState, JobState]] = frozenset(
    {
        (_S.SCHEDULED, _S.QUEUED),  # due
        (_S.RETRYING, _S.QUEUED),  # due
        (_S.QUEUED, _S.RUNNING),  # claimed
        (_S.QUEUED, _S.WAITING),  # its place in its group is another one's now, or the group is paused
        (_S.WAITING, _S.QUEUED),  # its predecessor is final, or resumed
        (_S.WAITING, _S.RUNNING),  # the same, in the settlement before it, by the same worker
        # In a group, without a place of its own: due, interrupted or lost in a pause, known to a worker, retried.
        (_S.SCHEDULED, _S.WAITING),
        (_S.RETRYING, _S.WAITING),
        (_S.RUNNING, _S.WAITING),
        (_S.UNHANDLED, _S.WAITING),
        (_S.FAILED, _S.WAITING),
        (_S.CANCELLED, _S.WAITING),
        (_S.QUEUED, _S.UNHANDLED),  # no such actor here, or its arguments do not bind
        # Its payload was deleted by hand: found when it is to be sent, or when its turn has come.
        (_S.SCHEDULED, _S.UNHANDLED),
        (_S.WAITING, _S.UNHANDLED),
        (_S.RETRYING, _S.UNHANDLED),
        (_S.RUNNING, _S.UNHANDLED),  # the same, found out after the claim
        (_S.UNHANDLED, _S.QUEUED),  # a worker that knows it, or an operator
        (_S.RUNNING, _S.SUCCEEDED),
        (_S.RUNNING, _S.RETRYING),  # a retryable error, or a snooze
        (_S.RUNNING, _S.FAILED),  # a final error, or too many crashes
        (_S.RUNNING, _S.CANCELLED),
        (_S.RUNNING, _S.QUEUED),  # worker lost, or interrupted by a shutdown
        (_S.FAILED, _S.QUEUED),  # operator retry
        (_S.CANCELLED, _S.QUEUED),  # operator retry
        *((state, _S.CANCELLED) for state in UNFINISHED_STATES - {_S.RUNNING}),
        *((state, _S.SUPERSEDED) for state in UNFINISHED_STATES - {_S.RUNNING}),
    }
)
"""Every legal (from, to) pair. Only the simulation and the tests read it, to check the SQL of the store against it."""


def sources_of(target: JobState) -> frozenset[JobState]:
    """The states from which ``target`` may be entered. For tests: the store writes these conditions in SQL."""
    return frozenset(source for source, to in TRANSITIONS if to is target)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One finished run of a job, as the store keeps it."""

    number: int
    worker_id: str
    started_at: datetime
    finished_at: datetime
    outcome: str
    error: str | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job is in its group: the 4th of 17."""

    number: int
    """From 1: the head."""
    of: int
    """Unfinished jobs of the group, scheduled ones not counted."""
    starts_at: datetime | None
    """When it may start, from recent run times of the group; ``None``: nothing is known of them, or it is blocked."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it was when it was read. Frozen: read it again to see it move."""

    id: JobId
    actor: str
    queue: str
    state: JobState
    group: str | None
    position: int | None
    priority: int
    tags: tuple[str, ...]
    dispatch: int
    attempt: int
    crashes: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    reason: str | None
    """Why it is in this state, for a person: an error's one line, the missing actor's name."""
    result: Any
    """The JSON value that the actor returned; ``None`` until it succeeded."""
    error: str | None
    traceback: str | None
    worker_id: str | None
    enqueued_at: datetime
    due_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempts: tuple[Attempt, ...] = ()
    """The newest finished runs, at most 100, the oldest of them first; filled by ``get``, empty in a list."""
    place: Place | None = None
    """Its place in its group; filled by ``get`` for an unfinished job of a group that is not scheduled."""


def new_job_ids(clock: Clock, count: int) -> list[JobId]:
    """``count`` fresh UUIDv7 (RFC 9562 §5.7), ascending within the call.

    The twelve bits after the millisecond count up, so that ids of one batch sort as they were sent.
    """
    millis = int(clock.wall().timestamp() * 1000)
    return [_uuid7(millis + index // 4096, index % 4096, clock.random_bits(62)) for index in range(count)]


def is_job_id(text: str) -> bool:
    """Whether ``text`` is a UUID in its canonical form (RFC 9562 §4, lower case)."""
    return _CANONICAL_UUID.fullmatch(text) is not None


def adopted_job_id(message_id: str) -> JobId:
    """The job id for a message of another producer: its own id where that is a UUID, else one made from it."""
    return JobId(message_id if is_job_id(message_id) else str(uuid.uuid5(_ADOPTED, message_id)))


def _uuid7(millis: int, counter: int, rest: int) -> JobId:
    value = (millis & (1 << 48) - 1) << 80 | 0x7 << 76 | counter << 64 | 0b10 << 62 | rest
    text = f"{value:032x}"
    return JobId(f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}")


_CANONICAL_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ADOPTED = uuid.uuid5(uuid.NAMESPACE_URL, "jq_actors:adopted")


def parse_states(names: str | Iterable[str]) -> frozenset[JobState]:
    """The states called ``names``, one or several.

    Raises:
      ValueError: names an unknown one and lists those allowed.
    """
    known = {state.value: state for state in JobState}
    wanted = [names] if isinstance(names, str) else list(names)
    for name in wanted:
        if name not in known:
            raise ValueError(f"Unknown job state {name!r}; allowed are {', '.join(known)}.")
    return frozenset(known[name] for name in wanted)
