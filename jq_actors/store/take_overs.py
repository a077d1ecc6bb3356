"""Taking over: a delivery whose job, or whose chain, was a lost worker's becomes an attempt of this worker."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.job import JobId, JobState
from jq_actors.protocol import Verdict, survives_crash

from .bodies import Bodies
from .dialect import Dialect, encode_rows
from .grants import grant
from .group_rows import GroupRows, LockedGroups
from .group_turns import next_job
from .judging import Claimed
from .losses import Losses, LostRun, lost_run, run_columns
from .records import Claim, ClaimRequest
from .tables import BIGINT, JOB_ID, NO_PLACE, Tables, group_order
from .workers import Workers

Row = sa.Row[Any]


class TakeOvers:
    """Ends lost runs, and begins new ones in their place. Whoever calls holds the locks of the jobs' groups."""

    def __init__(
        self,
        tables: Tables,
        dialect: Dialect,
        workers: Workers,
        losses: Losses,
        bodies: Bodies,
        max_crashes: int,
    ) -> None:
        self._workers, self._losses, self._bodies, self._max_crashes = workers, losses, bodies, max_crashes
        self._statement = _take_over(tables, dialect)

    async def write(
        self,
        connection: AsyncConnection,
        wanted: Mapping[str, tuple[Row, ClaimRequest]],
        groups: LockedGroups,
        now: datetime,
        claimed: Claimed,
    ) -> None:
        """Let the jobs of ``wanted`` (by id: what was seen of it, and who asks) run here, those of locked groups or of none.

        One that was lost too often is failed, and one of a paused group waits.
        """
        runs = {job_id: lost_run(row) for job_id, (row, _) in wanted.items()}
        runs = {job_id: run for job_id, run in runs.items() if run.group is None or run.group in groups}
        asking = {job_id: request for job_id, (_, request) in wanted.items()}
        doomed = [run for run in runs.values() if not survives_crash(run.crashes, self._max_crashes)]
        stopped = [run for run in runs.values() if run not in doomed and _is_paused(run, groups)]
        alive = [run for run in runs.values() if run not in doomed and run not in stopped]
        await self._run(connection, alive, asking, now, claimed)
        for run in await self._losses.queue(connection, stopped, groups, now):
            claimed.taken.append(run)
            # It travels again, by a new dispatch, when the group goes on.
            claimed.answers[asking[run.job_id].run_token] = Claim(Verdict.DROP_STALE)
        failed, events = await self._losses.fail(connection, doomed, groups, now)
        claimed.answers |= {asking[run.job_id].run_token: Claim(Verdict.DROP_FINAL) for run in failed}
        claimed.failed += failed
        claimed.of_groups += events

    async def _run(
        self,
        connection: AsyncConnection,
        runs: Collection[LostRun],
        asking: Mapping[str, ClaimRequest],
        now: datetime,
        claimed: Claimed,
    ) -> None:
        if not runs:
            return
        batch = [
            {"id": run.job_id, "lost_token": run.run_token, "run_token": asking[run.job_id].run_token} for run in runs
        ]
        parameters = {"batch": encode_rows(batch), "me": self._workers.my_id, "now": now}
        rows = (await connection.execute(self._statement, parameters)).all()
        others = [row.id for row in rows if asking[row.id].job_id != row.id]
        bodies = await self._bodies.of(connection, others)
        for row in rows:
            instead = next_job(row, bodies.get(row.id, b"")) if asking[row.id].job_id != row.id else None
            claimed.grant(row, instead)
        taken = {JobId(row.id) for row in rows}
        ended = [run for run in runs if run.job_id in taken]
        await self._losses.record(connection, ended, now)
        claimed.taken += ended


class BrokenChains:
    """What runs in groups: the delivery that began a chain has come back, so its worker may be lost."""

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
        """The rows of those that run in these groups, by id."""
        groups = await self._rows.read(connection, names)
        count = max((row.held for row in groups.values()), default=0)
        if not count:
            return {}
        parameters = {"batch": encode_rows([{"name": name} for name in groups]), "count": count}
        return {row.id: row for row in await connection.execute(self._statement, parameters)}


def _is_paused(run: LostRun, groups: LockedGroups) -> bool:
    return run.group is not None and groups[run.group].paused is not None


def _take_over(tables: Tables, dialect: Dialect) -> sa.UpdateBase:
    c = tables.jobs.c
    b = dialect.rows({"id": JOB_ID, "lost_token": BIGINT, "run_token": BIGINT}).c
    this = (c.id == b.id, c.run_token == b.lost_token, c.state == JobState.RUNNING.value)
    return grant(tables, b.run_token, *this, crashes=c.crashes + 1)
