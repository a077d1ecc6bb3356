"""Take-overs: a delivery whose job or chain was running on a lost worker becomes an attempt of this worker."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.events import JobsReleased
from jq_actors.model.claim_rules import Verdict, survives_crash
from jq_actors.model.job import JobState
from jq_actors.store.database.dialect import Dialect, encode_column, encode_rows
from jq_actors.store.groups.rows import GroupRows, LockedGroups
from jq_actors.store.groups.turns import GroupTurns, next_job
from jq_actors.store.records import Claim, ClaimRequest
from jq_actors.store.rows.dispatches import Bodies
from jq_actors.store.rows.grants import grant_of_queued
from jq_actors.store.rows.workers import Workers
from jq_actors.store.tables import NO_PLACE, Tables, group_order

from .claim_followups import ClaimResults
from .lost_runs import LostRun, LostRuns, lost_run, run_columns

Row = sa.Row[Any]


class TakeOvers:
    """Ends lost runs and starts new ones in their place. The caller must hold the locks of the jobs' groups."""

    def __init__(
        self,
        tables: Tables,
        dialect: Dialect,
        workers: Workers,
        lost_runs: LostRuns,
        turns: GroupTurns,
        bodies: Bodies,
        max_crashes: int,
    ) -> None:
        self._workers, self._lost_runs, self._turns, self._bodies = workers, lost_runs, turns, bodies
        self._max_crashes = max_crashes
        self._statement = grant_of_queued(tables, dialect)

    async def write(
        self,
        connection: AsyncConnection,
        wanted: Mapping[str, tuple[Row, ClaimRequest]],
        groups: LockedGroups,
        now: datetime,
        claimed: ClaimResults,
    ) -> None:
        """Run the jobs of ``wanted`` here if they have no group or their group is locked.

        ``wanted`` maps job ids to the row that was read and the request that asks for the job. As after any loss, the
        jobs are first queued again in their places, or failed if they have crashed too often. A job whose place now
        belongs to another job, or whose group is paused, waits instead.
        """
        runs = {job_id: lost_run(row) for job_id, (row, _) in wanted.items()}
        mine = [run for run in runs.values() if run.group is None or run.group in groups]
        asking: dict[str, ClaimRequest] = {run.job_id: wanted[run.job_id][1] for run in mine}
        alive = [run for run in mine if survives_crash(run.crashes, self._max_crashes)]
        taken = await self._lost_runs.queue(connection, alive, now)
        failed, events = await self._lost_runs.fail(connection, [run for run in mine if run not in alive], groups, now)
        claimed.answers |= {asking[run.job_id].run_token: Claim(Verdict.DROP_FINAL) for run in failed}
        claimed.taken += taken
        claimed.failed += failed
        claimed.of_groups += events
        names = {run.group for run in (*taken, *failed) if run.group is not None}
        given = await self._turns.give(connection, groups, now, names=names)
        here = [run for run in taken if self._fits(run, asking[run.job_id])]
        if elsewhere := given.count + len(taken) - len(here):
            claimed.of_groups.append(JobsReleased(elsewhere))
        dispatches = {job_id: wanted[job_id][0].dispatch for job_id in asking}
        await self._run(connection, here, dispatches, asking, now, claimed)
        # The others are sent again: when it is their turn, or to a worker that can run them.
        waits = {asking[run.job_id].run_token for run in taken} - claimed.answers.keys()
        claimed.answers |= {token: Claim(Verdict.DROP_STALE) for token in waits}

    def _fits(self, run: LostRun, request: ClaimRequest) -> bool:
        """Whether ``run`` fits the slot of the delivery. The delivery's own job always does."""
        return run.job_id == request.job_id or (run.queue, run.actor) in self._turns.fits.get(request.slot, ())

    async def _run(
        self,
        connection: AsyncConnection,
        runs: Collection[LostRun],
        dispatches: Mapping[str, int],
        asking: Mapping[str, ClaimRequest],
        now: datetime,
        claimed: ClaimResults,
    ) -> None:
        if not runs:
            return
        batch = [
            {"id": run.job_id, "dispatch": dispatches[run.job_id], "run_token": asking[run.job_id].run_token}
            for run in runs
        ]
        parameters = {"batch": encode_rows(batch), "me": self._workers.my_id, "now": now}
        rows = (await connection.execute(self._statement, parameters)).all()
        bodies = await self._bodies.of(connection, [row.id for row in rows if asking[row.id].job_id != row.id])
        for row in rows:
            is_own = asking[row.id].job_id == row.id
            claimed.grant(row, None if is_own else next_job(row, bodies.get(row.id, b"")))


class BrokenChains:
    """Finds what is running in groups whose chain may be broken.

    When the delivery that began a chain comes back, the worker of that chain may be lost.
    """

    def __init__(self, tables: Tables, dialect: Dialect, rows: GroupRows) -> None:
        self._rows = rows
        jobs, workers = tables.jobs, tables.workers
        names, job = dialect.rows({"name": sa.Text()}), jobs.alias("holder")
        holders = (
            sa.select(job.c.seq)
            .where(job.c.group_key == names.c.name, job.c.final_state.is_(None), group_order(job) < NO_PLACE)
            .where(job.c.has_place)
            .order_by(group_order(job))
            .limit(sa.bindparam("count", type_=sa.Integer))
        )
        self._statement = (
            sa.select(*run_columns(tables))
            .select_from(
                dialect.each_with(names, holders, jobs, jobs.c.seq).outerjoin(workers, workers.c.id == jobs.c.worker_id)
            )
            .where(jobs.c.state == JobState.RUNNING.value)
        )

    async def running(self, connection: AsyncConnection, names: Collection[str]) -> dict[str, Row]:
        """Return the rows of the running jobs in these groups, by id."""
        groups = await self._rows.read(connection, names)
        count = max((row.held for row in groups.values()), default=0)
        if not count:
            return {}
        parameters = {"batch": encode_column("name", groups), "count": count}
        return {row.id: row for row in await connection.execute(self._statement, parameters)}
