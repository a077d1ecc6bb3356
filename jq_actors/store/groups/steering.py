"""What an operator does to whole groups."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.store.database.database import Database
from jq_actors.store.tables import Tables

from .rows import GroupRows
from .stops import GroupStops
from .turns import GroupTurns

_GROUP = sa.bindparam("of_group", type_=sa.Text)


class GroupSteering:
    """Pauses, resumes and cancels groups."""

    def __init__(
        self, database: Database, tables: Tables, rows: GroupRows, turns: GroupTurns, stops: GroupStops
    ) -> None:
        self._database, self._rows, self._turns, self._stops = database, rows, turns, stops
        g = tables.groups.c
        self._resume = sa.update(tables.groups).where(g.name == _GROUP).values(paused_at=None, paused_reason=None)

    async def pause(self, group: str, reason: str, now: datetime) -> bool:
        """Pause ``group``, and record ``reason``. ``False``: it was paused already."""

        async def pause(connection: AsyncConnection) -> bool:
            groups = await self._rows.lock(connection, [group], now)
            is_new = await self._stops.pause(connection, groups, group, reason, now)
            await self._rows.write(connection, groups, now)
            return is_new

        return await self._database.write(pause)

    async def resume(self, group: str, now: datetime) -> int | None:
        """Resume ``group``. Returns how many jobs were released; ``None``: it was not paused."""

        async def resume(connection: AsyncConnection) -> int | None:
            groups = await self._rows.lock(connection, [group], now)
            if groups[group].paused is None:
                return None
            await connection.execute(self._resume, {"of_group": group})
            groups.put(replace(groups[group], paused=None))
            return (await self._turns.give(connection, groups, now)).count

        return await self._database.write(resume)

    async def cancel(self, group: str, reason: str, now: datetime) -> int:
        """Cancel the unfinished jobs of ``group`` that are not running, for ``reason``. Returns how many."""

        async def cancel(connection: AsyncConnection) -> int:
            groups = await self._rows.lock(connection, [group], now)
            count = await self._stops.cancel(connection, groups, group, reason, now)
            await self._turns.give(connection, groups, now)
            return count

        return await self._database.write(cancel)
