"""A worker renews its lease whatever else its connections are busy with."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa

from jq_actors.errors import StoreUnavailableError

from .stores import LEASE, World, another_me, queued

PROMPTLY = 15
"""Seconds: less than a transaction that is held up may take (`Dialect.deadline`)."""


async def test_heartbeat_has_a_connection_when_all_others_are_busy(db: World) -> None:
    store = db.store(pool_size=1)
    await store.open()
    me = another_me()
    await store.register(me, ["mail"], LEASE)
    before = await _heartbeat_of(db, me.id)
    release, taken = asyncio.Event(), asyncio.Semaphore(0)

    async def hold(connection: Any) -> None:
        await connection.execute(sa.select(1))
        taken.release()
        await release.wait()

    # As many as the pool has at most, and one that waits for a connection.
    slow = [asyncio.ensure_future(store._db.read(hold)) for _ in range(4)]
    for _ in range(3):
        await taken.acquire()
    await asyncio.wait_for(store.heartbeat({"mail": 3}), PROMPTLY)
    assert await _heartbeat_of(db, me.id) > before
    release.set()
    await asyncio.gather(*slow)


async def test_heartbeat_goes_before_other_writes(db: World) -> None:
    """SQLite has one writer at a time."""
    store = await db.worker()
    done: list[str] = []
    first, release = asyncio.Event(), asyncio.Event()

    async def hold(_connection: Any) -> None:
        first.set()
        await release.wait()

    async def write(number: int) -> None:
        await store._db.write(lambda connection: connection.execute(sa.select(1)))
        done.append(f"write {number}")

    async def beat() -> None:
        await store.heartbeat({})
        done.append("heartbeat")

    holding = asyncio.ensure_future(store._db.write(hold))
    await first.wait()
    if db.url.startswith("postgresql"):  # where it need not even wait for the first
        await asyncio.wait_for(beat(), PROMPTLY)
        release.set()
        await holding
        return
    writes = [asyncio.ensure_future(write(number)) for number in range(20)]
    await asyncio.sleep(0)
    beating = asyncio.ensure_future(beat())
    for _ in range(20):  # until they all wait
        await asyncio.sleep(0)
    release.set()
    await asyncio.gather(holding, beating, *writes)
    assert done.index("heartbeat") <= 2


async def test_heartbeat_that_hangs_is_given_up_before_the_lease_is_over(
    pg: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, me = pg.store(), another_me()
    await store.open()
    await store.register(me, ["mail"], LEASE)
    monkeypatch.setattr(type(store._workers), "patience", 0.1)
    workers = pg.tables.workers
    async with pg._engine.begin() as somebody:
        await somebody.execute(sa.select(workers.c.id).where(workers.c.id == me.id).with_for_update())
        with pytest.raises(StoreUnavailableError, match=r"no answer within 0\.1 s"):
            await store.heartbeat({})
    monkeypatch.undo()
    await store.heartbeat({})
    await queued(store)


async def _heartbeat_of(db: World, worker_id: str) -> Any:
    workers = db.tables.workers
    rows = await db.execute(sa.select(workers.c.heartbeat_at).where(workers.c.id == worker_id))
    return rows[0].heartbeat_at
