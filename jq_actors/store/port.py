"""The store port: what the core needs from the tables.

Every method is called on the I/O loop only, and every change is a single compare-and-set. All times, in and out, are
aware UTC in *database time* (``JobStore.now``), so the clocks of the workers do not matter. While the database is
away, `claim` and `settle` wait for it, which is natural back-pressure; the other methods raise
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
    """Stores jobs, attempts, groups and workers."""

    rules: GroupRules
    """The rules of the groups. The runtime sets them before `open`."""
    fits: Mapping[str, frozenset[tuple[str, str]]]
    """For each slot of this process (`Chain.slot`), the (queue, actor) pairs that it can run. The worker sets it."""
    on_released: Callable[[Sequence[Dispatch]], None]
    """Called with the dispatches that a settlement released and that this process must now publish."""
    on_due: Callable[[datetime], None]
    """Called with the time at which a settlement has made a job due, so that the worker's relay looks at that time."""

    async def open(self) -> None:
        """Connect, and check the tables or (with ``auto_migrate``) create or upgrade them.

        If the database is away, return and keep trying in the background.

        Raises:
          NotMigratedError: the tables have another version, and ``auto_migrate`` is off or cannot upgrade them.
        """
        ...

    async def close(self) -> None:
        """Write what is still pending, for at most a few seconds, then disconnect."""
        ...

    def now(self) -> datetime:
        """Return the current database time: the machine's clock, corrected by the measured difference."""
        ...

    # -- the life of a job

    async def insert(self, jobs: Sequence[NewJob], *, publish_lease: timedelta | None) -> list[Dispatch]:
        """Insert ``jobs``, either all of them or none.

        Returns the dispatches that the caller must publish within ``publish_lease``; later, a relay may publish them.
        Jobs that are scheduled or wait in their groups are never among them. Without a lease, none are returned.

        Raises:
          StoreUnavailableError: the database is away; no job is stored.
          StoreUnknownError: the database went away during the commit; the jobs may be stored.
          StoreError: a job already exists, or has a value that the database cannot hold.
          GroupFullError: a group already has as many waiting jobs as its rule allows.
          PositionTakenError: a position is used or has passed, or only one of a job and its group is numbered.
        """
        ...

    async def claim(self, request: ClaimRequest) -> Claim:
        """Decide on a delivery and return the verdict, with the attempt if it is granted.

        Claims that arrive during a write share the next one (natural group commit). Waits while the database is away.
        """
        ...

    async def settle(self, settlement: Settlement) -> Settled:
        """Write an outcome and give its group's turn to the next job. Shares writes and waits as `claim` does.

        Returns whether the outcome was written, and the next job of the group if that one runs here.
        """
        ...

    async def mark_published(self, dispatches: Sequence[tuple[JobId, int]], *, lane_owner: bool = False) -> None:
        """Record that the broker has confirmed ``dispatches``, which are (job id, dispatch number) pairs.

        ``lane_owner``: the commands are in this worker's memory (a transport that is not ``shared``). When the worker
        leaves or is lost, they become unpublished again.
        """
        ...

    async def release_publish_lease(self, dispatches: Sequence[tuple[JobId, int]]) -> None:
        """Give up the lease of ``dispatches`` that could not be published: any relay may take them at once."""
        ...

    async def note_refused(self, dispatches: Sequence[tuple[JobId, int]]) -> None:
        """Record that the broker refused ``dispatches``: they return after a pause and hold up no others meanwhile."""
        ...

    # -- the relay

    async def take_due(self, limit: int, publish_lease: timedelta) -> TakenDue:
        """Make up to ``limit`` due rows (scheduled or retrying) queued, with dispatch+1, leased for ``publish_lease``.

        A job in a group either keeps its place or takes its turn. Returns the dispatches that the caller
        must publish, and how many rows were due in all.
        """
        ...

    async def take_unpublished(
        self, room: Mapping[str, int] | None, limit: int, publish_lease: timedelta
    ) -> list[Dispatch]:
        """Lease up to ``limit`` queued rows that were never published and that nobody leases, oldest first.

        ``room`` maps each queue to the most rows to take from it and excludes all other queues; ``None``: any queue.
        Returns the dispatches that the caller must publish within ``publish_lease``.
        """
        ...

    async def take_missing(
        self, queue: str, published_before: datetime, limit: int, publish_lease: timedelta
    ) -> list[Dispatch]:
        """Lease up to ``limit`` queued rows of ``queue`` that were published before ``published_before``.

        Returns the dispatches to publish again within ``publish_lease``. Their numbers stay *the same*, and each row
        backs off separately.
        """
        ...

    async def count_published(self, queue: str, published_before: datetime, limit: int) -> int:
        """Count the queued rows of ``queue`` that the broker should have, up to ``limit``.

        Only rows published before ``published_before`` count.
        """
        ...

    async def held_deliveries(self, queue: str) -> int:
        """Return how many deliveries of ``queue`` the live workers held at their last heartbeats."""
        ...

    async def next_due(self) -> datetime | None:
        """Return when the next scheduled or retrying row is due; ``None``: there is no such row."""
        ...

    async def recover(self, limit: int) -> Recovery:
        """Give back up to ``limit`` running jobs of lost workers, counting one crash for each.

        Several relays may do so at the same time. Returns the jobs and the lost workers.
        """
        ...

    async def offer_unhandled(self, actors: Sequence[str], reason_begins: str = "") -> list[JobId]:
        """Queue unhandled rows of ``actors`` again, unpublished, with dispatch+1, and return their ids.

        Only rows whose reason begins with ``reason_begins`` are queued.
        """
        ...

    async def set_aside(self, job_id: JobId, dispatch: int, reason: str) -> bool:
        """Make a job that nobody can run unhandled, for ``reason``, if ``dispatch`` is its current one.

        Returns ``False`` if there is no such job.
        """
        ...

    async def prune(self, retention: Retention, limit: int) -> int:
        """Delete up to ``limit`` final rows that are older than ``retention`` allows, and return how many.

        Also deletes the oldest runs of jobs that have very many.
        """
        ...

    # -- groups

    async def end_gaps(self, limit: int) -> int:
        """Let numbered groups continue past gaps that have lasted too long (`GroupRule.gap_timeout`).

        Looks at up to ``limit`` groups. Returns how many jobs were released.
        """
        ...

    async def mend_groups(self, before: datetime, limit: int) -> int:
        """Check up to ``limit`` groups that have not moved since ``before``, and repair those with wrong counts.

        Returns how many were checked.
        """
        ...

    async def pause_group(self, group: str, reason: str) -> bool:
        """Stop starting jobs of ``group``, even if the group is not known yet, and record ``reason``.

        Returns ``False`` if it was already paused.
        """
        ...

    async def resume_group(self, group: str) -> int | None:
        """Start the jobs of ``group`` again. Returns how many were released; ``None``: it was not paused."""
        ...

    async def cancel_group(self, group: str, reason: str) -> int:
        """Cancel the unfinished jobs of ``group`` that are not running, for ``reason``. Returns how many."""
        ...

    async def move(self, job_id: JobId, group: str | None) -> JobState | None:
        """Move an unfinished job that is not running to the end of ``group``, or (``None``) to the front of its own.

        A queued job gets dispatch+1 and becomes unpublished. Returns the state that the job had before; ``None``: there
        is no such job.

        Raises:
          StoreError: the job is running, has ended or has no group, or one of the groups is numbered. Nothing changed.
        """
        ...

    async def get_group(self, group: str) -> Group | None:
        """Return what is known about a group; ``None``: nothing."""
        ...

    async def first_of_group(self, group: str, limit: int) -> list[Job]:
        """Return the group's first ``limit`` jobs that are neither final nor scheduled, in order, with their places."""
        ...

    async def find_groups(self, states: frozenset[GroupState], limit: int, after: str | None) -> GroupPage:
        """Return a page of up to ``limit`` groups in ``states`` that have unfinished jobs or are paused, by name.

        ``after`` is the cursor of the previous page. Raises ValueError if it is not a cursor of this listing.
        """
        ...

    # -- operator actions on jobs

    async def retry(self, where: JobFilter, job_ids: Sequence[JobId], limit: int) -> list[JobId]:
        """Queue up to ``limit`` failed or cancelled jobs again, unpublished and with dispatch+1.

        ``job_ids`` selects exactly these jobs, whatever ``where`` says; if it is empty, ``where`` selects them.
        In a group they get their old places. Returns the ids of the jobs that are queued again.
        """
        ...

    # -- workers

    async def register(self, worker: WorkerIdentity, queues: Sequence[str], lease: timedelta) -> None:
        """Create the row of this process, live for ``lease`` after each heartbeat. Later claims belong to it."""
        ...

    async def heartbeat(self, held: Mapping[str, int]) -> None:
        """Renew the lease, and record how many deliveries of each queue are ``held``."""
        ...

    async def leave(self) -> None:
        """Remove the row of this process, which has drained."""
        ...

    # -- reading

    async def get(self, job_id: JobId) -> Job | None:
        """Return a job with its newest attempts; ``None``: there is no such job."""
        ...

    async def end_of(self, job_id: JobId) -> JobEnd | None:
        """Read a job's state and, once it has ended, its result or error, in one narrow read. ``None``: no such job."""
        ...

    async def find(self, where: JobFilter, limit: int, after: str | None) -> JobPage:
        """Return a page of up to ``limit`` jobs, newest first, by keyset. ``after`` is the cursor of the previous page.

        Raises ValueError if ``after`` is not a cursor of this listing.
        """
        ...

    async def count_by_state(self) -> dict[JobState, int]:
        """Count the rows in each state. It reads every row: fine for a demo's summary, too slow for a web page."""
        ...

    async def check(self) -> StoreReport:
        """Report whether the database is reachable and migrated, for ``jq-actors check`` and ``db current``."""
        ...
