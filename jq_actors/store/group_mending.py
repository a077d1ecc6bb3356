"""Groups that stand still: forgotten when nothing of them is left, counted anew when something is wrong.

A group that holds fewer places than it may although a job waits must never be; but somebody may have changed rows by
hand, or the rule of the group, or have come from a release that kept no places. It would stand still for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.job import JobState
from jq_actors.turns import GroupView, Places, assign_places

from .database import Database
from .dialect import encode_rows
from .group_rows import GroupRow, GroupRows, LockedGroups
from .group_turns import NOW, GroupTurns, waiting
from .group_views import GroupViews
from .tables import Tables, UtcDateTime

_LIMIT = sa.bindparam("limit", type_=sa.Integer)
_BEFORE = sa.bindparam("before", type_=UtcDateTime)


class GroupMending:
    """Looks at each group that has not moved for a while."""

    def __init__(
        self,
        database: Database,
        tables: Tables,
        rows: GroupRows,
        views: GroupViews,
        turns: GroupTurns,
    ) -> None:
        self._database, self._rows, self._views, self._turns = database, rows, views, turns
        g, c = tables.groups.c, tables.jobs.c
        left = sa.exists().where(c.group_key == g.name, c.final_state.is_(None))
        idle = (g.waiting == 0, g.held == 0, g.next_position.is_(None), g.paused_at.is_(None))
        # One that is locked is moving.
        picked = (
            sa.select(g.name)
            .where(g.moved_at < _BEFORE, sa.or_(sa.and_(*idle), (g.waiting > 0) | (g.held > 0)))
            .order_by(g.moved_at)
            .limit(_LIMIT)
            .with_for_update(skip_locked=True)
            .cte("picked")
        )
        self._pick = sa.update(tables.groups).where(g.name == picked.c.name).values(moved_at=NOW).returning(g.name)
        names = database.dialect.rows({"name": sa.Text()})
        of_batch = g.name.in_(sa.select(names.c.name))
        self._forget = sa.delete(tables.groups).where(of_batch, *idle, ~left)
        of_groups = (c.group_key.in_(sa.select(names.c.name)), c.final_state.is_(None))
        # Of another producer, or an older release: nobody has admitted it.
        self._withdraw = (
            sa.update(tables.jobs)
            .where(*of_groups, c.state == JobState.QUEUED.value, ~c.has_place)
            .values(waiting("it was not admitted to its group"))
        )
        self._place_running = (
            sa.update(tables.jobs).where(*of_groups, c.state == JobState.RUNNING.value, ~c.has_place)
        ).values(has_place=True)
        self._count = (
            sa.select(
                c.group_key,
                sa.func.count(sa.case((c.has_place, 1))).label("held"),
                sa.func.count(sa.case((c.state == JobState.WAITING.value, 1))).label("waiting"),
            )
            .where(*of_groups)
            .group_by(c.group_key)
        )

    async def mend(self, before: datetime, limit: int, now: datetime) -> tuple[int, list[str]]:
        """Look at up to ``limit`` groups that have not moved since ``before``; returns how many, and those mended."""
        names = await self._database.write(lambda c: self._picked(c, before, limit, now))
        wrong = await self._database.read(lambda c: self._wrong(c, names)) if names else []
        if wrong:
            await self._database.write(lambda c: self._mend(c, wrong, now))
        return len(names), wrong

    async def _picked(self, connection: AsyncConnection, before: datetime, limit: int, now: datetime) -> list[str]:
        names = list((await connection.execute(self._pick, {"before": before, "limit": limit, "now": now})).scalars())
        if names:
            await connection.execute(self._forget, {"batch": _batch(names)})
        return names

    async def _wrong(self, connection: AsyncConnection, names: Sequence[str]) -> list[str]:
        rows = await self._rows.read(connection, names)
        views = await self._views.read(connection, rows)
        return [name for name, row in rows.items() if self._is_wrong(row, views[name])]

    def _is_wrong(self, row: GroupRow, view: GroupView) -> bool:
        holding = sum(member.has_place for member in view.members)
        some_wait = any(member.state is JobState.WAITING for member in view.members)
        places = replace(assign_places(view), next_position=None)
        return holding != row.held or (some_wait and not row.waiting) or places != Places()

    async def _mend(self, connection: AsyncConnection, names: Sequence[str], now: datetime) -> None:
        groups = await self._rows.lock(connection, names, now)
        batch = {"batch": _batch(names)}
        await connection.execute(self._withdraw, {**batch, "now": now})
        await connection.execute(self._place_running, batch)
        await self._recount(connection, groups, batch)
        await self._turns.give(connection, groups, now)

    async def _recount(self, connection: AsyncConnection, groups: LockedGroups, batch: dict[str, str]) -> None:
        counts = {row.group_key: row for row in await connection.execute(self._count, batch)}
        for name, row in groups.rows.items():
            count = counts.get(name)
            held, waits = (0, 0) if count is None else (count.held, count.waiting)
            groups.put(replace(row, held=held, waiting=waits))


def _batch(names: Sequence[str]) -> str:
    return encode_rows([{"name": name} for name in names])
