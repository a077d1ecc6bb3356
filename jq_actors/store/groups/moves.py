"""Moving a job within its group, or into another one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.errors import StoreError
from jq_actors.model.job import JobId, JobState, is_job_id
from jq_actors.model.turn_rules import BEHIND
from jq_actors.store.database.database import Database
from jq_actors.store.tables import JOB_ID, NO_PLACE, Tables, group_order

from .rows import GroupRows, LockedGroups
from .turns import GroupTurns, waiting

_ID = sa.bindparam("job_id", type_=JOB_ID)
_TO = sa.bindparam("to_group", type_=sa.Text)
_KEY = sa.bindparam("key", type_=sa.BigInteger)
_GROUP = sa.bindparam("name", type_=sa.Text)

Row = sa.Row[str | None, str, bool]


class GroupMoves:
    """Moves jobs within their groups, and into other groups."""

    def __init__(self, database: Database, tables: Tables, rows: GroupRows, turns: GroupTurns) -> None:
        self._database, self._jobs = database, tables.jobs
        self._rows, self._turns = rows, turns
        jobs = tables.jobs
        c, order = jobs.c, group_order(jobs)
        this = (c.id == _ID, c.final_state.is_(None), c.state != JobState.RUNNING.value)
        self._look = sa.select(c.group_key, c.state, c.has_place).where(c.id == _ID)
        self._first = sa.select(sa.func.min(order)).where(
            c.group_key == _GROUP, c.final_state.is_(None), order < NO_PLACE
        )
        place = sa.update(jobs).where(*this).values(group_key=_TO, order_key=_KEY)
        self._place = place.where(c.state.not_in(_STARTABLE)).values(has_place=False)
        self._let_wait = place.where(c.state.in_(_STARTABLE)).values(waiting(BEHIND))

    async def move(self, job_id: JobId, group: str | None, now: datetime) -> JobState | None:
        """Move an unfinished job to the end of ``group``, or (``None``) to the front of its own."""
        if not is_job_id(job_id):
            return None
        return await self._database.write(lambda connection: self._move(connection, job_id, group, now))

    async def _move(
        self, connection: AsyncConnection, job_id: JobId, group: str | None, now: datetime
    ) -> JobState | None:
        before = await self._seen(connection, job_id)
        if before is None:
            return None
        own = _own_group(job_id, before)
        groups = await self._lock(connection, [own] if group is None else [own, group], now)
        row = await self._seen(connection, job_id)
        if row is None or row.group_key != own:
            raise StoreError(f"Job {job_id} was moved by somebody else just now; nothing was changed.")
        state = JobState(row.state)
        if state.is_final or state is JobState.RUNNING:
            raise StoreError(f"Job {job_id} cannot be moved: it is {state.value}.")
        to = group or own
        key = await self._key(connection, own, state, to_front=group is None)
        parameters = {"job_id": job_id, "to_group": to, "key": key, "now": now}
        statement = self._let_wait if state in _STARTABLE else self._place
        if not (await connection.execute(statement, parameters)).rowcount:
            raise StoreError(f"Job {job_id} was claimed just now; it was not moved.")  # a claim takes no lock of groups
        groups.add(own, held=-int(bool(row.has_place)), waiting=-int(state is JobState.WAITING))
        groups.add(to, waiting=int(state in _STARTABLE))
        await self._turns.give(connection, groups, now)
        return state

    async def _seen(self, connection: AsyncConnection, job_id: JobId) -> Row | None:
        return (await connection.execute(self._look, {"job_id": job_id})).one_or_none()

    async def _lock(self, connection: AsyncConnection, names: Sequence[str], now: datetime) -> LockedGroups:
        groups = await self._rows.lock(connection, names, now)
        for row in groups.rows.values():
            if row.next_position is not None:
                raise StoreError(f"The jobs of group {row.name!r} are numbered: none can be moved in, out or within.")
        return groups

    async def _key(self, connection: AsyncConnection, own: str, state: JobState, *, to_front: bool) -> int:
        if state is JobState.SCHEDULED:
            return NO_PLACE  # it takes its place when it is due
        first = await connection.scalar(self._first, {"name": own}) if to_front else None
        [last] = await self._database.dialect.next_numbers(connection, self._jobs, 1)
        # Before all that were ever sent: a job that has ended must not find its place taken when it is retried.
        return last if first is None else min(int(first) - 1, -last)


_STARTABLE = (JobState.QUEUED, JobState.WAITING)


def _own_group(job_id: JobId, row: Row) -> str:
    if row.group_key is None:
        raise StoreError(f"Job {job_id} is in no group: it has no place that could change.")
    return str(row.group_key)
