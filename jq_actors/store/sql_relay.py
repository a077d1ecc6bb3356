"""The part of the SQL store that relays and workers use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.events import Events
from jq_actors.model.job import JobId
from jq_actors.model.worker_identity import WorkerIdentity
from jq_actors.store.database.database import Database
from jq_actors.store.groups.due import GroupDue
from jq_actors.store.relay.old_runs import OldRuns
from jq_actors.store.relay.publish_leases import PublishLeases
from jq_actors.store.relay.publish_queries import RelayQueries
from jq_actors.store.relay.recovery import Recovering
from jq_actors.store.relay.retention import Pruning
from jq_actors.store.relay.unhandled import UnhandledJobs
from jq_actors.store.rows.workers import Workers
from jq_actors.store.schema.readiness import Readiness

from .records import Dispatch, Recovery, Retention, TakenDue
from .sql_groups import GroupParts, SqlGroups
from .tables import Tables


class SqlRelay(SqlGroups):
    """The methods of a `JobStore` for relays and workers, besides those for groups. `SqlStore` adds the others."""

    def __init__(
        self,
        database: Database,
        tables: Tables,
        events: Events,
        parts: GroupParts,
        workers: Workers,
        readiness: Readiness,
        recovering: Recovering,
    ) -> None:
        super().__init__(database, tables, events, parts)
        self._db, self._workers, self._readiness, self._recovering = database, workers, readiness, recovering
        self._held: Mapping[str, int] = {}
        self._publishing = PublishLeases()
        self._relay = RelayQueries(database, tables, self._publishing)
        self._group_due = GroupDue(database, tables, parts.rows, parts.turns, parts.bodies)
        self._unhandled = UnhandledJobs(database, tables, parts.rows, parts.turns)
        self._pruning = Pruning(database, tables)
        self._old_runs = OldRuns(database, tables)

    # -- the relay

    async def take_due(self, limit: int, publish_lease: timedelta) -> TakenDue:
        """Make due rows queued, and lease their dispatches to the caller."""
        now = self.now()
        alone = await self._relay.take_due(limit, now, publish_lease)
        of_groups, woken = await self._group_due.take(limit, now, now + publish_lease)
        self._publishing.took([(d.job_id, d.dispatch) for d in of_groups], now + publish_lease, now)
        return TakenDue(alone + of_groups, len(alone) + woken)

    async def take_unpublished(
        self, room: Mapping[str, int] | None, limit: int, publish_lease: timedelta
    ) -> list[Dispatch]:
        """Lease queued rows that were never published."""
        return await self._relay.take_unpublished(room, limit, self.now(), publish_lease)

    async def take_missing(
        self, queue: str, published_before: datetime, limit: int, publish_lease: timedelta
    ) -> list[Dispatch]:
        """Lease published rows that may be missing from the broker."""
        return await self._relay.take_missing(queue, published_before, limit, self.now(), publish_lease)

    async def count_published(self, queue: str, published_before: datetime, limit: int) -> int:
        """Count the queued rows that the broker should have."""
        return await self._relay.count_published(queue, published_before, limit)

    async def next_due(self) -> datetime | None:
        """Return when the next scheduled or retrying row is due."""
        return await self._relay.next_due()

    async def recover(self, limit: int) -> Recovery:
        """Give back the running jobs of lost workers."""
        await self._live()
        recovered = await self._recovering.recover(limit, self.now())
        for event in recovered.events:
            self._events.emit(event)
        return Recovery(
            tuple(run.job_id for run in recovered.queued),
            tuple(run.job_id for run in recovered.failed),
            tuple(recovered.workers),
        )

    async def offer_unhandled(self, actors: Sequence[str], reason_begins: str = "") -> list[JobId]:
        """Queue unhandled rows of these actors again."""
        return await self._unhandled.offer(actors, reason_begins, self.now())

    async def set_aside(self, job_id: JobId, dispatch: int, reason: str) -> bool:
        """Make a job that nobody can run unhandled."""
        return await self._unhandled.set_aside(job_id, dispatch, reason)

    async def prune(self, retention: Retention, limit: int) -> int:
        """Delete old final rows, and the oldest runs of jobs that have very many."""
        await self._old_runs.prune(self.now())
        return await self._pruning.prune(retention, limit, self.now())

    # -- workers

    async def register(self, worker: WorkerIdentity, queues: Sequence[str], lease: timedelta) -> None:
        """Create the row of this process. If the database is away, the first claim or heartbeat creates it later."""
        self._workers.enrol(worker, queues, lease)
        await self.heartbeat({})

    async def heartbeat(self, held: Mapping[str, int]) -> None:
        """Renew the lease, and record how many deliveries of each queue are held."""
        self._held = held

        async def renew(connection: AsyncConnection) -> datetime:
            await self._db.measure(connection)
            now = self.now()
            await self._workers.renew(connection, now, held)
            return now

        self._workers.renewed(await self._db.write_urgently(renew, self._workers.patience))

    async def _live(self) -> None:
        """Renew this worker's own lease if necessary, before it claims jobs or takes those of other workers."""
        if self._workers.has_to_renew(self.now()):
            await self.heartbeat(self._held)

    async def leave(self) -> None:
        """Remove the row of this process, which has drained."""
        await self._recovering.leave(self._workers.my_id, self.now())
        self._workers.forget()

    async def held_deliveries(self, queue: str) -> int:
        """Return how many deliveries of a queue the live workers held at their last heartbeats."""
        now = self.now()
        return await self._db.read(lambda connection: self._workers.held(connection, queue, now))
