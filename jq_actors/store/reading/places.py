"""Where a job is in its group, and when it may start."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.model.group import GroupState
from jq_actors.model.job import JobState, Place
from jq_actors.store.database.dialect import Dialect, encode_rows
from jq_actors.store.groups.rows import GroupRow, GroupRows
from jq_actors.store.groups.snapshots import GroupSnapshots
from jq_actors.store.tables import JOB_ID, NO_PLACE, Tables, group_order

from .group_reading import state_of

RUNS = 20
"""How many runs an estimate is made from."""

Row = sa.Row[Any]

_GROUP = sa.bindparam("name", type_=sa.Text)


class Places:
    """Counts the jobs before a job, and estimates when it starts."""

    def __init__(self, tables: Tables, dialect: Dialect, rows: GroupRows, snapshots: GroupSnapshots) -> None:
        self._rows, self._snapshots = rows, snapshots
        jobs = tables.jobs
        c, order = jobs.c, group_order(jobs)
        members = (c.group_key == _GROUP, c.final_state.is_(None), c.state != JobState.SCHEDULED.value)
        before = order < sa.bindparam("place", type_=sa.BigInteger)
        ahead = before & (c.state != JobState.RUNNING.value)
        self._count = sa.select(
            sa.func.count(sa.case((before, 1))).label("before"),
            sa.func.count(sa.case((ahead, 1))).label("ahead"),
            sa.func.count().label("all"),
        ).where(*members)
        ids = dialect.rows({"id": JOB_ID})
        self._started = sa.select(c.started_at).join(ids, ids.c.id == c.id)
        self._first = sa.select(c.seq, c.position).where(*members, order < NO_PLACE).order_by(order).limit(1)
        runs = sa.select(c.started_at, c.finished_at).where(
            c.group_key == _GROUP, c.final_state.in_((JobState.SUCCEEDED.value, JobState.FAILED.value))
        )
        # The jobs just before the head ended last; there is no index by the times at which jobs ended.
        head = sa.bindparam("head", type_=sa.BigInteger)
        self._last_runs = {
            numbered: runs.where(column < head).order_by(column.desc()).limit(RUNS)
            for numbered, column in ((False, c.seq), (True, c.position))
        }

    async def of(self, connection: AsyncConnection, job: Row, now: datetime) -> Place | None:
        """The place of the job in ``job``, a row of jobs; ``None``: it has none."""
        state = JobState(job.state)
        if job.group_key is None or state.is_final or state is JobState.SCHEDULED:
            return None
        place = {"name": job.group_key, "place": job.seq if job.order_key is None else job.order_key}
        count = (await connection.execute(self._count, place)).one()
        if state is JobState.RUNNING:
            return Place(count.before + 1, count.all, job.started_at)
        starts_at = await self._starts_at(connection, job.group_key, count.ahead, now)
        return Place(count.before + 1, count.all, starts_at)

    async def _starts_at(self, connection: AsyncConnection, name: str, ahead: int, now: datetime) -> datetime | None:
        rows = await self._rows.read(connection, [name])
        row = rows.get(name) or GroupRow(name)
        view = (await self._snapshots.read(connection, {name: row}))[name]
        state, _ = state_of(view, {})
        head = (await connection.execute(self._first, {"name": name})).one_or_none()
        if state in (GroupState.PAUSED, GroupState.BLOCKED) or head is None:
            return None
        numbered = row.next_position is not None
        end = {"name": name, "head": head.position if numbered else head.seq}
        runs = await connection.execute(self._last_runs[numbered], end)
        lengths = [run.finished_at - run.started_at for run in runs]
        if not lengths:
            return None
        ids = {"batch": encode_rows([{"id": one.job_id} for one in view.members if one.state is JobState.RUNNING])}
        running = [now - started_at for started_at in (await connection.execute(self._started, ids)).scalars()]
        mean = sum(lengths, timedelta()) / len(lengths)
        return now + time_until(ahead, running, mean, view.concurrency)


def time_until(ahead: int, running: Sequence[timedelta], mean: timedelta, concurrency: int) -> timedelta:
    """How long until a job can start that has ``ahead`` others before it, while some have been ``running`` so long."""
    if ahead + len(running) < concurrency:
        return timedelta()
    left = sum((max(mean - time, timedelta()) for time in running), timedelta())
    return (left + ahead * mean) / concurrency
