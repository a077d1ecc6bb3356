"""What goes into the store and comes out of it, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from jq_actors.group import Group
from jq_actors.job import Job, JobId, JobState
from jq_actors.outcome import Outcome
from jq_actors.protocol import Verdict


@dataclass(frozen=True, slots=True)
class NewJob:
    """A row to be."""

    id: JobId
    actor: str
    queue: str
    body: bytes
    """The encoded command, as it is published."""
    due_at: datetime
    """When it may run. In the future: the row starts ``scheduled``, else ``queued``."""
    enqueued_at: datetime
    group: str | None = None
    position: int | None = None
    """Its number in its group, from 1; ``None``: it comes after those that were sent before."""
    priority: int = 0
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """A delivery asks to become an attempt."""

    job_id: JobId
    dispatch: int
    run_token: int
    """Fresh for each claim, 63 random bits: the fence of the run that it starts."""
    promised: bool
    """The producer stored a row (see `protocol.judge`)."""
    adopt: NewJob | None
    """The row to make when there is none and none was promised; ``None`` when one was."""
    queue: str = ""
    """The user's name of the queue that the delivery came from."""
    can_leave: bool = True
    """It came by a lane of its group alone, that can be left; else what would be LEAVE is PARK."""
    group: str | None = None
    """Its group, as the delivery says: a hint, which saves a look. The row may say another."""


@dataclass(frozen=True, slots=True)
class Instead:
    """The job that was granted in place of the delivery's own: it is its turn in their group."""

    job_id: JobId
    dispatch: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Claim:
    """The answer. ``verdict`` is GRANT, HOLD, PARK, LEAVE, DROP_FINAL or DROP_STALE: the rest the store does itself."""

    verdict: Verdict
    attempt: int = 0
    """The number of the attempt that begins, from 1, when granted."""
    crashes: int = 0
    look_again: timedelta = timedelta()
    """When held: how long until the owner's lease can be over, or its turn may have come."""
    instead: Instead | None = None
    """When granted: run this one; the delivery stays in hand, and is asked about again when that has ended."""
    group: str | None = None
    """The group of the job, as its row says."""
    reason: str = ""
    """When parked or left: why."""
    own_token: int | None = None
    """When held because it runs in this very process: the token of that run, as its row has it."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """How an attempt ended, to be written under its fence."""

    job_id: JobId
    run_token: int
    outcome: Outcome
    started_at: datetime
    finished_at: datetime
    republish: bool = False
    """Interrupted and the broker has no copy of it in a worker's hand: the relay has to publish it again."""
    keeps_turn: bool = False
    """Retrying, in a group, for a short time: its delivery stays in hand and runs again by the same dispatch. The relay
    takes it only if that does not happen."""


@dataclass(frozen=True, slots=True)
class Dispatch:
    """A dispatch that the relay has to publish: it holds the row's publish lease."""

    job_id: JobId
    dispatch: int
    queue: str
    body: bytes
    priority: int
    group: str | None


@dataclass(frozen=True, slots=True)
class StillGroup:
    """A group with a published job at its head that did not move for a while."""

    group: str
    queue: str
    """The queue of its head."""


@dataclass(frozen=True, slots=True)
class GroupPage:
    """A page of groups, by name. ``cursor`` continues after its last one; ``None``: that was all."""

    groups: tuple[Group, ...]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class JobFilter:
    """What to find; empty fields do not restrict."""

    states: frozenset[JobState] = frozenset()
    actor: str | None = None
    queue: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()
    """All of them must be there."""


@dataclass(frozen=True, slots=True)
class JobEnd:
    """What has become of a job; ``result``, ``error`` and ``traceback`` only when it has ended."""

    state: JobState
    reason: str | None = None
    result: Any = None
    error: str | None = None
    traceback: str | None = None


@dataclass(frozen=True, slots=True)
class JobPage:
    """A page of jobs, newest first. ``cursor`` continues after its last one; ``None``: that was all."""

    jobs: tuple[Job, ...]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class Recovery:
    """What became of the jobs of lost workers."""

    queued: tuple[JobId, ...] = ()
    """Queued again, unpublished: the relay's next look publishes them."""
    failed: tuple[JobId, ...] = ()
    """Lost their worker ``max_crashes`` times: failed, with that reason."""
    workers: tuple[str, ...] = ()
    """The ids of the workers found lost."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long final rows stay; ``None``: for ever."""

    succeeded: timedelta | None = timedelta(days=1)
    failed: timedelta | None = timedelta(days=30)
    cancelled: timedelta | None = timedelta(days=7)
    superseded: timedelta | None = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class StoreReport:
    """What ``check`` found."""

    description: str
    problems: tuple[str, ...] = ()
    revision: str | None = None
    head: str | None = None


class Room(NamedTuple):
    """How many rows of a queue fit into a process's memory."""

    plain: int
    """Those without a group."""
    lanes: int = 0
    """Those of groups."""


@dataclass(frozen=True, slots=True)
class Leases:
    """The times that the persistence protocol works with."""

    worker: timedelta = timedelta(seconds=30)
    """A worker that has not renewed for so long is lost."""
    publish: timedelta = timedelta(seconds=30)
    """A row whose publisher has not marked it for so long is published by a relay."""
    max_crashes: int = 3
    """A job whose worker was lost so many times is failed."""
    retention: Retention = field(default_factory=Retention)
