"""Queueing a worker's jobs again: after it was lost, or when it leaves."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.events import Event, JobsReleased
from jq_actors.model.claim_rules import Owner, owner_is_lost, survives_crash
from jq_actors.model.job import JobState
from jq_actors.model.outcome import Interrupted
from jq_actors.store.claims.lost_runs import LostRun, LostRuns, events_of, lost_run, run_columns
from jq_actors.store.claims.settles import Settles
from jq_actors.store.database.database import Database
from jq_actors.store.groups.rows import GroupRows
from jq_actors.store.groups.turns import GroupTurns
from jq_actors.store.records import Leases, Settlement
from jq_actors.store.rows.workers import Workers, known_dead
from jq_actors.store.tables import Tables

_WORKER = sa.bindparam("worker", type_=sa.Text)
_LIMIT = sa.bindparam("limit", type_=sa.Integer)
_ALL = 1_000_000
"""More than one process can run."""


@dataclass(slots=True)
class Recovered:
    """What was given back."""

    queued: list[LostRun] = field(default_factory=list)
    failed: list[LostRun] = field(default_factory=list)
    workers: list[str] = field(default_factory=list)
    """Lost workers that have nothing left."""
    of_groups: list[Event] = field(default_factory=list)
    """What the failed jobs did to their groups."""

    @property
    def events(self) -> list[Event]:
        """The events to emit."""
        return [*events_of(self.queued, self.failed), *self.of_groups]


class Recovering:
    """Finds lost workers, and queues their jobs again."""

    def __init__(
        self,
        database: Database,
        tables: Tables,
        leases: Leases,
        known_workers: Workers,
        lost_runs: LostRuns,
        settles: Settles,
        rows: GroupRows,
        turns: GroupTurns,
    ) -> None:
        jobs, workers = tables.jobs, tables.workers
        self._database, self._leases, self._workers = database, leases, known_workers
        self._lost_runs, self._settles, self._rows, self._turns = lost_runs, settles, rows, turns
        self._all = sa.select(
            workers.c.id, workers.c.host, workers.c.pid, workers.c.process_started, workers.c.lease_until
        )
        self._lock = sa.select(workers.c.lease_until).where(workers.c.id == _WORKER).with_for_update(skip_locked=True)
        self._remove = sa.delete(workers).where(workers.c.id == _WORKER)
        # By the index of unfinished rows: each claim would write to an index of running rows, and workers are rarely
        # lost.
        self._running = (
            sa.select(*run_columns(tables))
            .outerjoin(workers, workers.c.id == jobs.c.worker_id)
            .where(
                jobs.c.final_state.is_(None),
                jobs.c.state == JobState.RUNNING.value,
                jobs.c.worker_id == _WORKER,
            )
            .limit(_LIMIT)
        )
        self._unlane = (
            sa.update(jobs)
            .where(jobs.c.lane_owner == _WORKER, jobs.c.state == JobState.QUEUED.value)
            .values(lane_owner=None, published_at=None, publish_at=jobs.c.due_at)
        )

    async def recover(self, limit: int, now: datetime) -> Recovered:
        """Queue up to ``limit`` running jobs of lost workers again, and all that waited in their memory."""
        recovered = Recovered()
        for owner in await self._database.read(lambda c: self._lost(c, now)):
            left = limit - len(recovered.queued) - len(recovered.failed)
            if left <= 0:
                break
            part = await self._give_back(owner, left, now)
            recovered.queued += part.queued
            recovered.failed += part.failed
            recovered.workers += part.workers
            recovered.of_groups += part.of_groups
        return recovered

    async def leave(self, worker: str, now: datetime) -> None:
        """Remove a worker that has drained. Jobs that it still has are queued again, and count as interrupted."""
        await self._database.write(lambda c: self._leave(c, worker, now))

    async def _lost(self, connection: AsyncConnection, now: datetime) -> list[Owner]:
        rows = [row for row in await connection.execute(self._all) if not self._workers.is_me(row.id)]
        dead = await known_dead({row.id: (row.host, row.pid, row.process_started) for row in rows})
        owners = [Owner(row.id, self._workers.lease_end(row.lease_until), row.id in dead) for row in rows]
        return [owner for owner in owners if owner_is_lost(owner, now)]

    async def _give_back(self, owner: Owner, limit: int, now: datetime) -> Recovered:
        async def work(connection: AsyncConnection) -> Recovered:
            recovered = Recovered()
            worker = {"worker": owner.worker_id}
            # The holder of this lock recovers the worker. A claim that the worker is making now has either
            # finished, and its row is found below, or it finds no worker to claim for.
            lease_until = await connection.scalar(self._lock, worker)
            if lease_until is None:
                return recovered  # another relay is at it
            if not owner_is_lost(replace(owner, lease_until=self._workers.lease_end(lease_until)), now):
                return recovered  # it came back to life
            # Read without locks, since those of the groups come first; the run tokens say who is still running so.
            runs = await self._runs(connection, owner.worker_id, limit)
            groups = await self._rows.lock(connection, {run.group for run in runs if run.group is not None}, now)
            alive = [run for run in runs if survives_crash(run.crashes, self._leases.max_crashes)]
            recovered.queued = await self._lost_runs.queue(connection, alive, now)
            doomed = [run for run in runs if run not in alive]
            recovered.failed, recovered.of_groups = await self._lost_runs.fail(connection, doomed, groups, now)
            given = await self._turns.give(connection, groups, now)
            if given.count:
                recovered.of_groups.append(JobsReleased(given.count))
            await connection.execute(self._unlane, {"worker": owner.worker_id})
            if len(runs) < limit:
                await connection.execute(self._remove, worker)
                recovered.workers.append(owner.worker_id)
            return recovered

        return await self._database.write(work)

    async def _leave(self, connection: AsyncConnection, worker: str, now: datetime) -> None:
        await connection.execute(self._remove, {"worker": worker})
        runs = await self._runs(connection, worker, _ALL)
        if runs:
            interrupted = [
                Settlement(
                    run.job_id, run.run_token, Interrupted(), run.started_at, now, republish=True, group=run.group
                )
                for run in runs
            ]
            await self._settles.write(connection, interrupted, now, now, may_be_committed=False)
        # After the locks of the groups: jobs in its memory may belong to groups.
        await connection.execute(self._unlane, {"worker": worker})

    async def _runs(self, connection: AsyncConnection, worker: str, limit: int) -> list[LostRun]:
        parameters = {"worker": worker, "limit": limit}
        return [lost_run(row) for row in await connection.execute(self._running, parameters)]
