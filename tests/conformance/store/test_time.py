"""The time of a store is that of its database."""

from __future__ import annotations

from datetime import timedelta

from tests.support.clock import FakeClock

from .stores import LEASE, World, another_me, clock, world_on


async def test_time_is_that_of_the_database(pg: World) -> None:
    store = pg.store(clock=FakeClock())  # of another year
    await store.open()
    assert abs(store.now() - clock.wall()) < timedelta(seconds=10)


async def test_heartbeat_measures_anew(pg: World) -> None:
    slow = FakeClock()
    store = pg.store(clock=slow)
    await store.open()
    await store.register(another_me(), ["mail"], LEASE)
    slow.jump(timedelta(hours=5))
    assert store.now() - clock.wall() > timedelta(hours=4)
    await store.heartbeat({})
    assert abs(store.now() - clock.wall()) < timedelta(seconds=10)


async def test_time_of_a_file_is_that_of_the_machine(sqlite_url: str) -> None:
    async with world_on(sqlite_url) as world:
        frozen = FakeClock()
        store = world.store(clock=frozen)
        await store.open()
        assert store.now() == frozen.wall()
