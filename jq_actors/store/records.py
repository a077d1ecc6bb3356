"""The values that go into the store and come out of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from jq_actors.model.claim_rules import Verdict
from jq_actors.model.group import Group
from jq_actors.model.job import Job, JobId, JobState
from jq_actors.model.outcome import Outcome


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to insert as a row."""

    id: JobId
    actor: str
    queue: str
    body: bytes
    """The encoded command, exactly as it is published."""
    due_at: datetime
    """When it may run. If that is in the future, the row starts as ``scheduled``, otherwise as ``queued``."""
    enqueued_at: datetime
    group: str | None = None
    position: int | None = None
    """Its number in its group, from 1. ``None``: it comes after the jobs that were sent before it."""
    priority: int = 0
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """A request that a delivery become an attempt."""

    job_id: JobId
    dispatch: int
    run_token: int
    """63 random bits, new for each claim. The token is the fence of the run that the claim starts."""
    promised: bool
    """Whether the producer stored a row (see `claim_rules.judge`)."""
    adopt: NewJob | None
    """The row to insert if there is none and none was promised; ``None`` if one was promised."""
    redelivered: bool = False
    """Whether the broker has delivered it before. If so, its worker may have died in a chain that the job began."""
    slot: str = ""
    """The slot in which it would run (`JobStore.fits`)."""


@dataclass(frozen=True, slots=True)
class NextJob:
    """A job of a group that now runs here because it is its turn, not because of its own delivery."""

    job_id: JobId
    dispatch: int
    run_token: int
    attempt: int
    crashes: int
    queue: str
    group: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Claim:
    """The answer to a claim.

    ``verdict`` is GRANT, HOLD, PARK, DROP_FINAL or DROP_STALE. The store acts on the other verdicts itself.
    """

    verdict: Verdict
    attempt: int = 0
    """When granted: the number of the attempt, from 1."""
    crashes: int = 0
    look_again: timedelta = timedelta()
    """When held: how long to wait until the owner's lease may have expired."""
    instead: NextJob | None = None
    """When granted: run this job. The delivery's own job has ended, after it began a chain whose worker is lost."""
    group: str | None = None
    """The group of the job, as stored in its row."""
    reason: str = ""
    """When parked: why."""
    own_token: int | None = None
    """When held because the job is running in this process: the token of that run, as stored in its row."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A request that the next job of the group run at once, in this process."""

    run_token: int
    """The token of that run."""
    slot: str
    """The slot in which it would run. Only a job that fits the slot is given (`JobStore.fits`)."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """How an attempt ended, to be written under the fence of its run."""

    job_id: JobId
    run_token: int
    outcome: Outcome
    started_at: datetime
    finished_at: datetime
    republish: bool = False
    """Whether the relay must publish the interrupted job again, because no worker holds a delivery of it."""
    group: str | None = None
    """The group of the job, as returned by its claim."""
    chain: Chain | None = None
    """Run the group's next job here. ``None``: publish it for any worker."""


@dataclass(frozen=True, slots=True)
class Settled:
    """The result of a settlement."""

    written: bool
    """``False``: the claim had been lost, and nothing was written."""
    next: NextJob | None = None


@dataclass(frozen=True, slots=True)
class Dispatch:
    """A dispatch to publish. Whoever receives it holds the row's publish lease."""

    job_id: JobId
    dispatch: int
    queue: str
    body: bytes
    priority: int
    group: str | None


@dataclass(frozen=True, slots=True)
class TakenDue:
    """Scheduled and retrying jobs whose time has come."""

    dispatches: list[Dispatch]
    """The dispatches that the relay must publish."""
    count: int
    """The number of all these jobs, including those in groups that wait for their turn."""


@dataclass(frozen=True, slots=True)
class GroupPage:
    """A page of groups, by name. ``cursor`` continues after the last one; ``None``: there are no more."""

    groups: tuple[Group, ...]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs to find. An empty field does not restrict the search."""

    states: frozenset[JobState] = frozenset()
    actor: str | None = None
    queue: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()
    """The job must have all of them."""


@dataclass(frozen=True, slots=True)
class JobEnd:
    """The state of a job. ``result``, ``error`` and ``traceback`` are set only after it has ended."""

    state: JobState
    reason: str | None = None
    result: Any = None
    error: str | None = None
    traceback: str | None = None


@dataclass(frozen=True, slots=True)
class JobPage:
    """A page of jobs, newest first. ``cursor`` continues after the last one; ``None``: there are no more."""

    jobs: tuple[Job, ...]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class Recovery:
    """What happened to the jobs of lost workers."""

    queued: tuple[JobId, ...] = ()
    """Queued again, unpublished. The relay publishes them when it looks next."""
    failed: tuple[JobId, ...] = ()
    """Failed, because they lost their worker ``max_crashes`` times."""
    workers: tuple[str, ...] = ()
    """The ids of the lost workers."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long final rows are kept, by state; ``None``: for ever."""

    succeeded: timedelta | None = timedelta(days=1)
    failed: timedelta | None = timedelta(days=30)
    cancelled: timedelta | None = timedelta(days=7)
    superseded: timedelta | None = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class StoreReport:
    """The findings of `JobStore.check`."""

    description: str
    problems: tuple[str, ...] = ()
    revision: str | None = None
    head: str | None = None


@dataclass(frozen=True, slots=True)
class Leases:
    """The time limits of the persistence protocol."""

    worker: timedelta = timedelta(seconds=30)
    """A worker that has not renewed its lease for this long is lost."""
    publish: timedelta = timedelta(seconds=30)
    """A relay publishes a row that its publisher has not marked as published for this long."""
    max_crashes: int = 3
    """A job fails when its worker has been lost this many times."""
    retention: Retention = field(default_factory=Retention)
