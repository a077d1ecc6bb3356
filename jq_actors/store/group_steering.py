"""What an operator does to whole groups, and whether a lane is worth serving."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.job import JobId
from jq_actors.turns import Leave, turn_of

from .database import Database
from .group_release import GroupReleases
from .group_rows import GroupRow, GroupRows
from .group_stops import GroupStops
from .group_views import GroupViews
from .tables import Tables

LOOK_NEXT = datetime(1970, 1, 1, tzinfo=UTC)
"""The ``moved_at`` of a group that the relay has to look at first: perhaps nobody serves its lanes."""

_GROUP = sa.bindparam("of_group", type_=sa.Text)


class GroupSteering:
    """Pauses, resumes and cancels groups."""

    def __init__(
        self,
        database: Database,
        tables: Tables,
        rows: GroupRows,
        views: GroupViews,
        releases: GroupReleases,
        stops: GroupStops,
    ) -> None:
        self._database, self._rows, self._views = database, rows, views
        self._releases, self._stops = releases, stops
        g, c = tables.groups.c, tables.jobs.c
        self._resume = (
            sa.update(tables.groups)
            .where(g.name == _GROUP, g.paused_at.is_not(None))
            .values(paused_at=None, paused_reason=None, moved_at=LOOK_NEXT)
        )
        self._queues = sa.select(c.queue).where(c.group_key == _GROUP, c.final_state.is_(None)).distinct()

    async def has_turn(self, group: str, queue: str, now: datetime) -> bool:
        """See JobStore."""

        async def look(connection: AsyncConnection) -> bool:
            found = await self._rows.read(connection, [group])
            row = found.get(group) or GroupRow(group, None, None, ())
            view = (await self._views.read(connection, {group: row})).sights[group].view()
            if not view.members and not view.running:
                return True
            # Of no particular job: one that is not among the first is answered by who those are.
            return not isinstance(turn_of(view, JobId(""), queue, now), Leave)

        return await self._database.read(look)

    async def pause(self, group: str, reason: str, now: datetime) -> bool:
        """See JobStore."""

        async def pause(connection: AsyncConnection) -> bool:
            await self._rows.lock(connection, [group], now)
            return bool(await self._stops.pause(connection, {group: reason}, now))

        return await self._database.write(pause)

    async def resume(self, group: str, now: datetime) -> list[str] | None:
        """See JobStore. What was parked because of the pause is released at once."""

        async def resume(connection: AsyncConnection) -> list[str] | None:
            if (await connection.execute(self._resume, {"of_group": group})).rowcount == 0:
                return None
            await self._releases.release(connection, [group], now)
            return sorted((await connection.execute(self._queues, {"of_group": group})).scalars())

        return await self._database.write(resume)

    async def cancel(self, group: str, reason: str, now: datetime) -> int:
        """See JobStore."""

        async def cancel(connection: AsyncConnection) -> int:
            await self._rows.lock(connection, [group], now)
            return await self._stops.cancel(connection, group, reason, now)

        return await self._database.write(cancel)
