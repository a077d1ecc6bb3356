"""The watch over the actor loop: a real loop that is blocked, and a clock that the test moves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from jq_actors.concurrency.loops import LoopThread
from jq_actors.events import Events, LoopBlocked
from jq_actors.worker.watchdog import STACK_DEPTH, Watchdog
from tests.support.clock import FakeClock
from tests.support.recorder import EventRecorder

pytestmark = pytest.mark.blocking_allowed  # a blocked loop is what is watched

WAIT = 20.0
WARN_AFTER = 1.0


class Watched:
    """A loop in a thread, which the test blocks and lets go, and the watchdog on it."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock, self.loop, events = clock, LoopThread("actors"), Events()
        self.loop.start()
        self.seen = EventRecorder(events, LoopBlocked)
        self.watchdog = Watchdog(self.loop, WARN_AFTER, clock, events)
        self._release = threading.Event()

    async def block(self) -> None:
        """Block the loop until `let_go`."""
        self._release.clear()
        begun = threading.Event()
        self.loop.loop.call_soon_threadsafe(self.an_actor_that_blocks, begun)
        assert await asyncio.to_thread(begun.wait, WAIT)

    def an_actor_that_blocks(self, begun: threading.Event) -> None:
        begun.set()
        self._release.wait(WAIT)

    async def let_go(self) -> None:
        """Unblock it, and wait until it has answered what it was asked."""
        self._release.set()
        await asyncio.wrap_future(self.loop.submit(asyncio.sleep(0)))

    async def look_after(self, seconds: float) -> None:
        await self.clock.advance(seconds)
        self.watchdog.look()


@pytest.fixture
async def watched(clock: FakeClock) -> AsyncIterator[Watched]:
    watched = Watched(clock)
    yield watched
    await watched.let_go()
    await asyncio.to_thread(watched.loop.stop)


async def test_a_loop_that_answers_is_never_told(watched: Watched) -> None:
    for _ in range(20):
        await watched.look_after(WARN_AFTER)
        await watched.let_go()
    assert watched.seen.seen == []
    assert watched.watchdog.lag == 0.0


async def test_a_blocked_loop_is_told_with_the_stack_of_what_blocks_it(watched: Watched) -> None:
    await watched.block()
    watched.watchdog.look()
    await watched.look_after(WARN_AFTER - 0.1)
    assert watched.seen.seen == []
    await watched.look_after(0.2)
    [told] = watched.seen.of(LoopBlocked)
    assert told.seconds == pytest.approx(WARN_AFTER + 0.1)
    assert "an_actor_that_blocks" in told.stack
    assert "self._release.wait(WAIT)" in told.stack
    assert told.stack.count("File ") <= STACK_DEPTH
    assert watched.watchdog.lag == pytest.approx(WARN_AFTER + 0.1)


async def test_a_long_block_is_told_again_at_each_doubling_only(watched: Watched) -> None:
    await watched.block()
    watched.watchdog.look()
    for _ in range(80):
        await watched.look_after(0.125)
    assert [told.seconds for told in watched.seen.of(LoopBlocked)] == [1.0, 2.0, 4.0, 8.0]


async def test_after_an_answer_the_next_block_is_told_from_the_beginning(watched: Watched) -> None:
    for _ in range(2):
        await watched.block()
        watched.watchdog.look()
        await watched.look_after(WARN_AFTER * 1.5)
        await watched.let_go()
        assert watched.watchdog.lag == 0.0
    assert [told.seconds for told in watched.seen.of(LoopBlocked)] == [1.5, 1.5]


async def test_it_looks_often_enough(watched: Watched) -> None:
    watching = asyncio.create_task(watched.watchdog.run())
    await watched.clock.advance(0)
    await watched.let_go()
    await watched.block()
    await watched.clock.advance(WARN_AFTER * 1.5)
    assert len(watched.seen.seen) == 1
    watching.cancel()


async def test_a_thread_that_is_gone_is_told_as_such(clock: FakeClock) -> None:
    never_started, events = LoopThread("actors"), Events()
    seen = EventRecorder(events, LoopBlocked)
    watchdog = Watchdog(never_started, WARN_AFTER, clock, events)
    watchdog.look()
    await clock.advance(WARN_AFTER)
    watchdog.look()
    assert seen.of(LoopBlocked)[0].stack == "(the thread is gone)"
    never_started.stop()
