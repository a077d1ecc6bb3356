"""Groups that do not move: forgotten when no job is left, counted anew when something is wrong.

A group must never hold fewer places than it may while a job waits. But somebody may have changed rows by hand, or the
rule of the group, or upgraded from a release that kept no places. Without a repair such a group would never move again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.model.job import JobState
from jq_actors.model.turn_rules import GroupView, Places, assign_places
from jq_actors.store.database.database import Database
from jq_actors.store.database.dialect import Dialect, encode_column
from jq_actors.store.tables import NO_PLACE, Tables, UtcDateTime, group_order

from .rows import GroupRow, GroupRows, LockedGroups
from .snapshots import GroupSnapshots
from .turns import NOW, GroupTurns, waiting

PROBE = 100
"""Jobs of a group that are looked at, besides as many as it says hold its places. Only where something is wrong with
them, or may be, all are counted."""

_LIMIT = sa.bindparam("limit", type_=sa.Integer)
_BEFORE = sa.bindparam("before", type_=UtcDateTime)
_NEVER_HOLD = (JobState.WAITING.value, JobState.SCHEDULED.value)
_ALWAYS_HOLD = (JobState.QUEUED.value, JobState.RUNNING.value)

Row = sa.Row[Any]


class GroupRepair:
    """Checks each group that has not moved for a while."""

    def __init__(
        self,
        database: Database,
        tables: Tables,
        rows: GroupRows,
        snapshots: GroupSnapshots,
        turns: GroupTurns,
    ) -> None:
        self._database, self._rows, self._snapshots, self._turns = database, rows, snapshots, turns
        g, c = tables.groups.c, tables.jobs.c
        left = sa.exists().where(c.group_key == g.name, c.final_state.is_(None))
        idle = (g.waiting == 0, g.held == 0, g.next_position.is_(None), g.paused_at.is_(None))
        # One that is locked is moving.
        picked = (
            sa.select(g.name)
            .where(g.moved_at < _BEFORE, sa.or_(sa.and_(*idle), g.waiting != 0, g.held != 0))
            .order_by(g.moved_at)
            .limit(_LIMIT)
            .with_for_update(skip_locked=True)
            .cte("picked")
        )
        self._pick = sa.update(tables.groups).where(g.name == picked.c.name).values(moved_at=NOW).returning(g.name)
        names = database.dialect.rows({"name": sa.Text()})
        of_batch = g.name.in_(sa.select(names.c.name))
        self._forget = sa.delete(tables.groups).where(of_batch, *idle, ~left)
        self._first = _first(tables, database.dialect)
        of_groups = (c.group_key.in_(sa.select(names.c.name)), c.final_state.is_(None))
        this = sa.update(tables.jobs).where(*of_groups).returning(c.group_key)
        # A job of another producer or of an older release: nobody has admitted it.
        self._withdraw = this.where(c.state == JobState.QUEUED.value, ~c.has_place).values(
            waiting("it was not admitted to its group")
        )
        runs = c.state == JobState.RUNNING.value
        self._put_right = this.where(
            sa.or_(runs & ~c.has_place, c.state.in_(_NEVER_HOLD) & c.has_place),
        ).values(has_place=runs)
        self._count = (
            sa.select(
                c.group_key,
                sa.func.count(sa.case((c.has_place, 1))).label("held"),
                sa.func.count(sa.case((c.state == JobState.WAITING.value, 1))).label("waiting"),
            )
            .where(*of_groups)
            .group_by(c.group_key)
        )

    async def repair(self, before: datetime, limit: int, now: datetime) -> tuple[int, list[str]]:
        """Check up to ``limit`` groups that have not moved since ``before``; returns how many, and those repaired."""
        names = await self._database.write(lambda c: self._picked(c, before, limit, now))
        wrong = await self._database.read(lambda c: self._wrong(c, names)) if names else []
        repaired = await self._database.write(lambda c: self._repair(c, wrong, now)) if wrong else []
        return len(names), repaired

    async def _picked(self, connection: AsyncConnection, before: datetime, limit: int, now: datetime) -> list[str]:
        names = list((await connection.execute(self._pick, {"before": before, "limit": limit, "now": now})).scalars())
        if names:
            await connection.execute(self._forget, {"batch": _batch(names)})
        return names

    async def _wrong(self, connection: AsyncConnection, names: Sequence[str]) -> list[str]:
        """The groups with which something is, or may be, wrong."""
        rows = await self._rows.read(connection, names)
        views = await self._snapshots.read(connection, rows)
        count = PROBE + max((row.held for row in rows.values()), default=0)
        first: defaultdict[str, list[Row]] = defaultdict(list)
        for row in await connection.execute(self._first, {"batch": _batch(list(rows)), "count": count}):
            first[row.group_key].append(row)
        return [name for name, row in rows.items() if _is_wrong(row, views[name], first[name], count)]

    async def _repair(self, connection: AsyncConnection, names: Sequence[str], now: datetime) -> list[str]:
        """Repair what is wrong; returns the groups in which something was."""
        groups = await self._rows.lock(connection, names, now)
        batch = {"batch": _batch(names)}
        changed = set((await connection.execute(self._withdraw, {**batch, "now": now})).scalars())
        changed |= set((await connection.execute(self._put_right, batch)).scalars())
        await self._recount(connection, groups, batch)
        await self._turns.give(connection, groups, now)
        return sorted(changed | {row.name for row in groups.changed})

    async def _recount(self, connection: AsyncConnection, groups: LockedGroups, batch: Mapping[str, str]) -> None:
        counts = {row.group_key: row for row in await connection.execute(self._count, batch)}
        for name, row in groups.rows.items():
            count = counts.get(name)
            held, waits = (0, 0) if count is None else (count.held, count.waiting)
            if (held, waits) != (row.held, row.waiting):
                groups.put(replace(row, held=held, waiting=waits))


def _is_wrong(group: GroupRow, view: GroupView, first: Sequence[Row], probed: int) -> bool:
    holding = sum(job.has_place for job in first)
    waits = sum(job.state == JobState.WAITING for job in first)
    is_counted = holding == group.held and (waits == group.waiting if len(first) < probed else waits <= group.waiting)
    misplaced = any(
        job.has_place if job.state in _NEVER_HOLD else job.state in _ALWAYS_HOLD and not job.has_place for job in first
    )
    places = replace(assign_places(view), next_position=None)
    return misplaced or not is_counted or places != Places()


def _first(tables: Tables, dialect: Dialect) -> sa.Select[Any]:
    """Of each group of the batch its first ``count`` jobs."""
    jobs, names = tables.jobs, dialect.rows({"name": sa.Text()})
    job = jobs.alias("first")
    order = group_order(job)
    first = (
        sa.select(job.c.seq)
        .where(job.c.group_key == names.c.name, job.c.final_state.is_(None), order < NO_PLACE)
        .order_by(order)
        .limit(sa.bindparam("count", type_=sa.Integer))
    )
    found = dialect.each_with(names, first, jobs, jobs.c.seq)
    return sa.select(jobs.c.group_key, jobs.c.state, jobs.c.has_place).select_from(found)


def _batch(names: Sequence[str]) -> str:
    return encode_column("name", names)
