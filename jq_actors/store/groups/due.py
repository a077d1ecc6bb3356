"""Jobs of groups that are due: a retry that kept its place runs again in it, all others take their turn."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.model.turn_rules import BEHIND
from jq_actors.store.database.database import Database
from jq_actors.store.database.dialect import encode_column, encode_rows
from jq_actors.store.records import Dispatch
from jq_actors.store.rows.dispatches import Bodies, dispatch_columns, dispatches_of, queued_anew
from jq_actors.store.tables import BIGINT, JOB_ID, NO_PLACE, Tables, UtcDateTime

from .rows import GroupRows, LockedGroups
from .turns import GroupTurns, waiting

_NOW = sa.bindparam("now", type_=UtcDateTime)

Row = sa.Row[Any]


class GroupDue:
    """Wakes scheduled and retrying jobs of groups."""

    def __init__(self, database: Database, tables: Tables, rows: GroupRows, turns: GroupTurns, bodies: Bodies) -> None:
        self._database, self._jobs = database, tables.jobs
        self._rows, self._turns, self._bodies = rows, turns, bodies
        c, ids = tables.jobs.c, database.dialect.rows({"id": JOB_ID})
        due = (c.wake_at <= _NOW, c.group_key.is_not(None))
        self._candidates = (
            sa.select(c.id, c.group_key)
            .where(*due)
            .order_by(c.wake_at, c.seq)
            .limit(sa.bindparam("limit", type_=sa.Integer))
        )
        columns = (c.id, c.group_key, c.has_place, c.order_key, c.due_at, c.seq)
        self._due: sa.Select[Any] = sa.select(*columns).join(ids, ids.c.id == c.id).where(*due)
        this = sa.update(tables.jobs).where(c.id == ids.c.id, c.wake_at <= _NOW)
        leased = queued_anew(tables.jobs) | {"publish_at": sa.bindparam("lease", type_=UtcDateTime)}
        self._go_on = this.where(c.has_place).values(leased).returning(*dispatch_columns(tables.jobs))
        self._give_up_place = this.where(c.has_place).values(waiting(BEHIND))
        places = database.dialect.rows({"id": JOB_ID, "place": BIGINT}).c
        self._take_place = (
            sa.update(tables.jobs)
            .where(c.id == places.id, c.wake_at <= _NOW, ~c.has_place)
            .values(waiting(BEHIND) | {"order_key": sa.func.coalesce(places.place, c.order_key)})
        )

    async def take(self, limit: int, now: datetime, lease: datetime) -> tuple[list[Dispatch], int]:
        """Wake up to ``limit`` jobs. Returns those queued, leased until ``lease``, and how many woke at all."""
        return await self._database.write(lambda connection: self._take(connection, limit, now, lease))

    async def _take(
        self, connection: AsyncConnection, limit: int, now: datetime, lease: datetime
    ) -> tuple[list[Dispatch], int]:
        candidates = (await connection.execute(self._candidates, {"limit": limit, "now": now})).all()
        if not candidates:
            return [], 0
        groups = await self._rows.lock(connection, {row.group_key for row in candidates}, now)
        batch = encode_column("id", [row.id for row in candidates])
        # Read anew under the locks: another relay may have woken some of them.
        found = (await connection.execute(self._due, {"batch": batch, "now": now})).all()
        rows = [row for row in found if row.group_key in groups]
        holding = [row for row in rows if row.has_place and groups[row.group_key].paused is None]
        stopped = [row for row in rows if row.has_place and groups[row.group_key].paused is not None]
        dispatches = await self._queue(connection, holding, now, lease)
        await self._let_wait(connection, stopped, [row for row in rows if not row.has_place], groups, now)
        arrived = {row.group_key for row in rows if not row.has_place}
        given = await self._turns.give(connection, groups, now, names=arrived, publish_from=lease)
        return dispatches + given.dispatches, len(rows)

    async def _queue(
        self, connection: AsyncConnection, rows: Sequence[Row], now: datetime, lease: datetime
    ) -> list[Dispatch]:
        if not rows:
            return []
        batch = encode_column("id", [row.id for row in rows])
        queued = (await connection.execute(self._go_on, {"batch": batch, "now": now, "lease": lease})).all()
        bodies = await self._bodies.of(connection, [row.id for row in queued])
        return dispatches_of(sorted(queued, key=lambda row: (row.due_at, row.seq)), bodies)

    async def _let_wait(
        self,
        connection: AsyncConnection,
        stopped: Sequence[Row],
        without_place: Sequence[Row],
        groups: LockedGroups,
        now: datetime,
    ) -> None:
        if stopped:
            batch = encode_column("id", [row.id for row in stopped])
            await connection.execute(self._give_up_place, {"batch": batch, "now": now})
        if without_place:
            numbers = await self._numbers(connection, without_place)
            placed = [{"id": row.id, "place": numbers.get(row.seq)} for row in without_place]
            await connection.execute(self._take_place, {"batch": encode_rows(placed), "now": now})
        for row in (*stopped, *without_place):
            groups.add(row.group_key, held=-int(bool(row.has_place)), waiting=1)

    async def _numbers(self, connection: AsyncConnection, rows: Sequence[Row]) -> dict[int, int]:
        """Jobs without a place in their group's order come last, in the order in which they became due."""
        due = sorted((row for row in rows if row.order_key == NO_PLACE), key=lambda row: (row.due_at, row.seq))
        if not due:
            return {}
        numbers = await self._database.dialect.next_numbers(connection, self._jobs, len(due))
        return {row.seq: number for row, number in zip(due, numbers, strict=True)}
