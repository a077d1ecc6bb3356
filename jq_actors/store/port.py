"""The store port: what the core asks of the tables.

Everything here is called on the I/O loop only. Each change is one compare-and-set. All times that go in or
come out are aware UTC in *database time* (``JobStore.now``), so that the clocks of workers do not matter.
While the database is away, `claim` and `settle` wait for it (natural back-pressure); the others raise
``StoreUnavailableError``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

from jq_actors.group import Group, GroupState
from jq_actors.groups import GroupRules
from jq_actors.job import Job, JobId, JobState
from jq_actors.outcome import Outcome
from jq_actors.protocol import Verdict
from jq_actors.worker import WorkerIdentity


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


class JobStore(Protocol):
    """Rows of jobs, attempts, groups and workers."""

    rules: GroupRules
    """What holds for groups; set by the runtime before `open`."""
    group_window: int | None
    """How many jobs of one group are given to the transport at once; those behind are ``waiting`` from the start.

    ``None``: as many as there are. Set by the runtime, for a transport whose queues are small (`Transport.shared`).
    """

    async def open(self) -> None:
        """Connect and make sure of the tables (``auto_migrate``), or wait in the background for the database.

        Raises:
          NotMigratedError: the tables are of another version and ``auto_migrate`` is off.
        """
        ...

    async def close(self) -> None:
        """Write what is still to be written (up to a few seconds), then disconnect."""
        ...

    def now(self) -> datetime:
        """Database time, from the machine's clock and the measured difference."""
        ...

    # -- the life of a job

    async def insert(self, jobs: Sequence[NewJob], *, publish_lease: timedelta | None) -> None:
        """Insert rows, all or none. With ``publish_lease`` the caller publishes them itself within that time.

          Raises:
            StoreUnavailableError: surely none is stored.
            StoreUnknownError: the database went away while it committed; they may be stored.
            StoreError: one of them exists, or has a value that the database cannot hold.
        GroupFullError: a group of them has as many waiting jobs as its rule allows.
        PositionTakenError: a position is used or past, or its group is not numbered, or only some of it would be.
        """
        ...

    async def claim(self, request: ClaimRequest) -> Claim:
        """Decide over a delivery; batched with the claims that wait (natural group commit)."""
        ...

    async def settle(self, settlement: Settlement) -> bool:
        """Write an outcome; ``False``: the claim was lost meanwhile and nothing was written. Batched."""
        ...

    async def mark_published(self, dispatches: Sequence[tuple[JobId, int]], *, lane_owner: bool = False) -> None:
        """The broker has confirmed these.

        ``lane_owner``: they wait in the memory of this worker (a transport that is not ``shared``); when it leaves
        or is lost, they are unpublished again.
        """
        ...

    async def release_publish_lease(self, dispatches: Sequence[tuple[JobId, int]]) -> None:
        """These could not be published: another look of any relay may take them at once."""
        ...

    # -- the relay

    async def take_due(self, limit: int, publish_lease: timedelta) -> list[Dispatch]:
        """Scheduled and retrying rows that are due become queued with dispatch+1, leased to the caller."""
        ...

    async def take_unpublished(
        self, room: Mapping[str, Room] | None, limit: int, publish_lease: timedelta
    ) -> list[Dispatch]:
        """Queued rows that were never published and that nobody leases, oldest first.

        ``room``: at most so many of each queue, and no other queues; ``None``: any. Jobs of groups and others do not
        wait for each other.
        """
        ...

    async def take_missing(
        self, queue: str, published_before: datetime, limit: int, publish_lease: timedelta
    ) -> list[Dispatch]:
        """Queued rows of ``queue`` published before that time: the *same* dispatch again, backing off per row."""
        ...

    async def count_published(self, queue: str, published_before: datetime, limit: int) -> int:
        """How many queued rows of ``queue`` the broker should have, counted up to ``limit``."""
        ...

    async def held_deliveries(self, queue: str) -> int:
        """How many deliveries of ``queue`` live workers said they hold, at their last heartbeat."""
        ...

    async def next_due(self) -> datetime | None:
        """When the next scheduled or retrying row is due."""
        ...

    async def recover(self, limit: int) -> Recovery:
        """Give the running jobs of lost workers back, counting a crash each; several relays at once are safe."""
        ...

    async def offer_unhandled(self, actors: Sequence[str], reason_begins: str = "") -> list[JobId]:
        """Unhandled rows of these actors, with such a reason, become queued again, with dispatch+1, unpublished."""
        ...

    async def prune(self, retention: Retention, limit: int) -> int:
        """Delete up to ``limit`` final rows that are past their time; returns how many."""
        ...

    # -- groups

    async def has_turn(self, group: str, queue: str) -> bool:
        """Whether a delivery from ``queue`` would now be answered with anything but LEAVE; also when none is left."""
        ...

    async def release_waiting(self, limit: int) -> int:
        """Parked jobs whose reason is gone become queued, with dispatch+1, unpublished, in order; how many.

        Also ends what a numbered group waited for too long for (`GroupRule.gap_timeout`).
        """
        ...

    async def still_groups(self, before: datetime, limit: int) -> list[StillGroup]:
        """Groups whose head was published, and that did not move since ``before``; each is returned once in a while."""
        ...

    async def take_lost(self, still: Sequence[StillGroup], limit: int, publish_lease: timedelta) -> list[Dispatch]:
        """Published, queued rows of these groups, in order, whose lanes have lost them: the *same* dispatch again."""
        ...

    async def pause_group(self, group: str, reason: str) -> bool:
        """Start nothing of ``group`` any more, known or not yet known; ``False``: it was paused already."""
        ...

    async def resume_group(self, group: str) -> list[str] | None:
        """Start its jobs again; returns the queues that it has unfinished jobs in. ``None``: it was not paused."""
        ...

    async def cancel_group(self, group: str, reason: str) -> int:
        """Cancel its unfinished jobs but those that run; returns how many."""
        ...

    async def move(self, job_id: JobId, group: str | None) -> JobState | None:
        """Put an unfinished job that does not run to the end of another group, or (``None``) to the front of its own.

        Queued ones get dispatch+1 and are unpublished. Returns its state, as it was; ``None``: there is no such job.

        Raises:
          StoreError: it runs or has ended, has no group, or a group is numbered; nothing was changed.
        """
        ...

    async def get_group(self, group: str) -> Group | None:
        """What is known of a group; ``None``: nothing."""
        ...

    async def first_of_group(self, group: str, limit: int) -> list[Job]:
        """The first of its jobs that are neither final nor scheduled, in their order, with their places."""
        ...

    async def find_groups(self, states: frozenset[GroupState], limit: int, after: str | None) -> GroupPage:
        """A page of those with unfinished jobs or a pause, by name. Raises ValueError for a foreign cursor."""
        ...

    # -- what an operator does to jobs

    async def retry(self, where: JobFilter, job_ids: Sequence[JobId], limit: int) -> list[JobId]:
        """Failed or cancelled jobs become queued, with dispatch+1, unpublished; in a group, in their old places.

        ``job_ids``: these, whatever ``where`` says; none: those that ``where`` finds. Returns the ids of those changed.
        """
        ...

    # -- workers

    async def register(self, worker: WorkerIdentity, queues: Sequence[str], lease: timedelta) -> None:
        """Make the row of this process; claims from here on belong to it."""
        ...

    async def heartbeat(self, held: Mapping[str, int]) -> None:
        """Renew the lease and say how many deliveries of each queue are held."""
        ...

    async def leave(self) -> None:
        """Remove the row of this process: it has drained."""
        ...

    # -- reading

    async def get(self, job_id: JobId) -> Job | None:
        """One job with its attempts."""
        ...

    async def find(self, where: JobFilter, limit: int, after: str | None) -> JobPage:
        """A page by keyset. ``after``: the cursor of the page before. Raises ValueError for a foreign cursor."""
        ...

    async def count_by_state(self) -> dict[JobState, int]:
        """How many rows are in each state. Reads all rows: for a demo's summary, not for a page."""
        ...

    async def check(self) -> StoreReport:
        """For ``jq-actors check`` and ``db current``: reachable, migrated?"""
        ...


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
