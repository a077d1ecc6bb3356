"""What goes into the store and comes out of it, as values."""

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
    """The producer stored a row (see `claim_rules.judge`)."""
    adopt: NewJob | None
    """The row to make when there is none and none was promised; ``None`` when one was."""
    redelivered: bool = False
    """The broker delivered it before, to somebody: perhaps its worker died in the middle of a chain that it began."""
    slot: str = ""
    """Where it would run (`JobStore.fits`)."""


@dataclass(frozen=True, slots=True)
class NextJob:
    """A job of a group that runs from now on here, besides the one that a delivery brought: it was its turn."""

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
    """The answer. ``verdict`` is GRANT, HOLD, PARK, DROP_FINAL or DROP_STALE: the rest the store does itself."""

    verdict: Verdict
    attempt: int = 0
    """The number of the attempt that begins, from 1, when granted."""
    crashes: int = 0
    look_again: timedelta = timedelta()
    """When held: how long until the owner's lease can be over."""
    instead: NextJob | None = None
    """When granted: run this one. The delivery's own job has ended, and began a chain whose worker is lost."""
    group: str | None = None
    """The group of the job, as its row says."""
    reason: str = ""
    """When parked: why."""
    own_token: int | None = None
    """When held because it runs in this very process: the token of that run, as its row has it."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A wish: what comes next in the group runs at once, in this very process."""

    run_token: int
    """Of that run."""
    slot: str
    """The slot that it would have; only jobs that fit there are given (`JobStore.fits`)."""


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
    group: str | None = None
    """The group of the job, as its claim said."""
    chain: Chain | None = None
    """Go on with the group's next job here; ``None``: that one is published, for anybody."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a settlement."""

    written: bool
    """``False``: the claim was lost meanwhile, and nothing was written."""
    next: NextJob | None = None


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
class TakenDue:
    """Scheduled and retrying jobs whose time has come."""

    dispatches: list[Dispatch]
    """Those that the relay has to publish."""
    count: int
    """All of them; in groups some wait for their turn."""


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
