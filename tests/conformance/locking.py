"""Locks that tests hold on PostgreSQL, and those that others wait for meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.support.waiting import eventually

from .stores import World


@asynccontextmanager
async def group_held(pg: World, name: str = "g") -> AsyncIterator[AsyncConnection]:
    """A transaction that has locked the row of a group, and commits at the end, if not before."""
    groups = pg.tables.groups
    async with pg.transaction() as connection:
        await connection.execute(sa.select(groups).where(groups.c.name == name).with_for_update())
        yield connection


async def somebody_waits(pg: World, count: int = 1) -> None:
    """Wait until ``count`` connections to this database wait for a lock."""

    async def they_wait() -> bool:
        [row] = await pg.execute(
            sa.text(
                "SELECT count(*) AS waiting FROM pg_stat_activity"
                " WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
        )
        return bool(row.waiting >= count)

    await eventually(they_wait, 20, f"{count} to wait for a lock")
