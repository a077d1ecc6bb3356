"""A clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random  # noqa: TID251 - a clock is the source of random numbers
from datetime import UTC, datetime, timedelta


class FakeClock:
    """A `Clock` whose time moves only by `advance`, and whose random numbers are replayed from ``seed``.

    ``sleep`` ends when the time has come, in the order of the deadlines. One loop only.
    """

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC), seed: int = 1) -> None:
        self._start = start
        self._elapsed = 0.0
        self._jump = timedelta()
        self._random = random.Random(seed)
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def wall(self) -> datetime:
        """The start, plus the seconds advanced, plus those of `jump`."""
        return self._start + timedelta(seconds=self._elapsed) + self._jump

    def monotonic(self) -> float:
        """Seconds advanced so far."""
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        """Suspend until `advance` has moved the time by ``seconds``; with zero, only yield."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        waking: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed + seconds, next(self._order), waking))
        await waking

    def random(self) -> float:
        """The next number of the replayed sequence."""
        return self._random.random()

    def random_bits(self, bits: int) -> int:
        """The next integer of the replayed sequence."""
        return self._random.getrandbits(bits)

    @property
    def sleepers(self) -> int:
        """How many tasks sleep now."""
        return sum(not waking.done() for _, _, waking in self._sleepers)

    def jump(self, by: timedelta) -> None:
        """Move only the wall clock, as an administrator or NTP does."""
        self._jump += by

    async def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass. Each sleeper runs, and may sleep again, before time moves on."""
        goal = self._elapsed + seconds
        await _settle()
        while self._sleepers and self._sleepers[0][0] <= goal:
            self._elapsed, _, waking = heapq.heappop(self._sleepers)
            if not waking.done():
                waking.set_result(None)
            await _settle()
        self._elapsed = goal


async def _settle() -> None:
    # Woken tasks wake others through futures and queues; a few rounds of the loop let such chains finish.
    for _ in range(20):
        await asyncio.sleep(0)
