"""Time that stands still moves only as the test says."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from jq_actors.clock import Clock
from tests.support.clock import FakeClock


async def test_sleepers_wake_in_the_order_of_their_deadlines(clock: FakeClock) -> None:
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, *naps: float) -> None:
        for nap in naps:
            await clock.sleep(nap)
            woken.append((name, clock.monotonic()))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sleeper("long", 3))
        tasks.create_task(sleeper("short", 1, 1))
        await clock.advance(2.5)
        assert woken == [("short", 1), ("short", 2)]
        assert clock.sleepers == 1
        await clock.advance(0.5)
    assert woken[2:] == [("long", 3)]


async def test_a_cancelled_sleeper_is_forgotten(clock: FakeClock) -> None:
    task = asyncio.create_task(clock.sleep(1))
    await clock.advance(0)
    assert clock.sleepers == 1
    task.cancel()
    await clock.advance(2)
    assert task.cancelled()
    assert clock.sleepers == 0


async def test_a_jump_moves_the_wall_clock_only() -> None:
    clock = FakeClock(datetime(2026, 3, 1, tzinfo=UTC))
    await clock.advance(10)
    clock.jump(timedelta(hours=-1))
    assert clock.wall() == datetime(2026, 2, 28, 23, 0, 10, tzinfo=UTC)
    assert clock.monotonic() == 10


def test_chance_is_replayed() -> None:
    one, other, third = (FakeClock(seed=seed) for seed in (5, 5, 6))

    def draw(clock: Clock) -> list[float]:
        return [clock.random(), clock.random_bits(64)]

    assert draw(one) == draw(other) != draw(third)
