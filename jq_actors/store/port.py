"""The store port: what the core asks of the tables.

Everything here is called on the I/O loop only. Each change is one compare-and-set. All times that go in or
come out are aware UTC in *database time* (``JobStore.now``), so that the clocks of workers do not matter.
While the database is away, `claim` and `settle` wait for it (natural back-pressure); the others raise
``StoreUnavailableError``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from jq_actors.model.group import Group, GroupState
from jq_actors.model.group_rules import GroupRules
from jq_actors.model.job import Job, JobId, JobState
from jq_actors.model.worker_identity import WorkerIdentity

from .records import (
    Claim,
    ClaimRequest,
    Dispatch,
    GroupPage,
    JobEnd,
    JobFilter,
    JobPage,
    NewJob,
    Recovery,
    Retention,
    Settled,
    Settlement,
    StoreReport,
    TakenDue,
)


class JobStore(Protocol):
    """Rows of jobs, attempts, groups and workers."""

    rules: GroupRules
    """What holds for groups; set by the runtime before `open`."""
    fits: Mapping[str, frozenset[tuple[str, str]]]
    """Of each slot of this process the jobs that it can run: queues and actors. Set by the worker (`Chain.slot`)."""
    on_released: Callable[[Sequence[Dispatch]], None]
    """Called with dispatches that a settlement released, and that this process has to publish now."""
    on_due: Callable[[datetime], None]
    """Called when a settlement has made a job due at that time; the worker's relay looks then."""

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

    async def insert(self, jobs: Sequence[NewJob], *, publish_lease: timedelta | None) -> list[Dispatch]:
        """Insert rows, all or none. Returns those that the caller has to publish itself, within ``publish_lease``.

        None without it; scheduled ones, and those that wait in their groups, are never among them.

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

    async def settle(self, settlement: Settlement) -> Settled:
        """Write an outcome, and give the turn on in its group. Batched."""
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

    async def note_refused(self, dispatches: Sequence[tuple[JobId, int]]) -> None:
        """The broker did not take these: they come again after a pause, and hold up no others meanwhile."""
        ...

    # -- the relay

    async def take_due(self, limit: int, publish_lease: timedelta) -> TakenDue:
        """Scheduled and retrying rows that are due become queued with dispatch+1, leased to the caller.

        In a group they go on in their place, or take their turn.
        """
        ...

    async def take_unpublished(
        self, room: Mapping[str, int] | None, limit: int, publish_lease: timedelta
    ) -> list[Dispatch]:
        """Queued rows that were never published and that nobody leases, oldest first.

        ``room``: at most so many of each queue, and no other queues; ``None``: any.
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

    async def set_aside(self, job_id: JobId, dispatch: int, reason: str) -> bool:
        """This dispatch can be run by nobody: it becomes unhandled, with the reason, if it is the valid one.

        ``False``: there is no such row.
        """
        ...

    async def prune(self, retention: Retention, limit: int) -> int:
        """Delete up to ``limit`` final rows that are past their time; returns how many.

        Also the oldest runs of jobs that have very many.
        """
        ...

    # -- groups

    async def end_gaps(self, limit: int) -> int:
        """Let numbered groups go on that have waited too long (`GroupRule.gap_timeout`); how many jobs are released."""
        ...

    async def mend_groups(self, before: datetime, limit: int) -> int:
        """Look at groups that have not moved since ``before``, count those anew that are wrong; returns how many."""
        ...

    async def pause_group(self, group: str, reason: str) -> bool:
        """Start nothing of ``group`` any more, known or not yet known; ``False``: it was paused already."""
        ...

    async def resume_group(self, group: str) -> int | None:
        """Start its jobs again; returns how many are released. ``None``: it was not paused."""
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
        """One job with its newest attempts."""
        ...

    async def end_of(self, job_id: JobId) -> JobEnd | None:
        """What has become of a job: one narrow read, for those who wait for it. ``None``: there is no such job."""
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
