"""A sleep that can be cut short."""

from __future__ import annotations

import asyncio

from jq_actors.concurrency.doorbell import Doorbell
from tests.support.clock import FakeClock


async def test_it_sleeps_until_the_time_is_over(clock: FakeClock) -> None:
    sleep = asyncio.create_task(Doorbell(clock).wait(5))

    await clock.advance(4.9)
    assert not sleep.done()
    await clock.advance(0.1)

    assert await sleep is False


async def test_a_ring_wakes_the_sleeper(clock: FakeClock) -> None:
    bell = Doorbell(clock)
    sleep = asyncio.create_task(bell.wait(5))
    await clock.advance(1)

    bell.ring()

    assert await asyncio.wait_for(sleep, 1) is True
    assert clock.sleepers == 0


async def test_without_a_time_only_a_ring_wakes_it(clock: FakeClock) -> None:
    bell = Doorbell(clock)
    sleep = asyncio.create_task(bell.wait())
    await clock.advance(1e9)
    assert not sleep.done()

    bell.ring()

    assert await asyncio.wait_for(sleep, 1) is True


async def test_a_ring_while_nobody_sleeps_is_kept_and_many_are_one(clock: FakeClock) -> None:
    bell = Doorbell(clock)
    bell.ring()
    bell.ring()

    assert await bell.wait(5) is True

    sleep = asyncio.create_task(bell.wait(5))
    await clock.advance(5)
    assert await sleep is False


async def test_a_cancelled_sleeper_leaves_nothing_behind(clock: FakeClock) -> None:
    before = asyncio.all_tasks()
    sleep = asyncio.create_task(Doorbell(clock).wait(5))
    await clock.advance(1)

    sleep.cancel()
    await asyncio.wait([sleep])
    await asyncio.sleep(0)

    assert asyncio.all_tasks() == before
