"""Locks that tests hold on PostgreSQL, and those that others wait for meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.store.sql import SqlStore
from tests.support.waiting import eventually

from .stores import World


class Held:
    """The transactions of a store, each of which does all that it does, and then waits for leave to commit."""

    def __init__(self, store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_done, self.may_commit = asyncio.Event(), asyncio.Event()
        self._write = store._db.write
        monkeypatch.setattr(store._db, "write", self.write)

    async def write(self, work: Callable[[AsyncConnection], Awaitable[Any]], **options: Any) -> Any:
        async def held(connection: AsyncConnection) -> Any:
            answer = await work(connection)
            self.is_done.set()
            await self.may_commit.wait()
            return answer

        return await self._write(held, **options)


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
