"""Messages of this process that are held back until they are due."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from datetime import timedelta

from jq_actors.clock import Clock
from jq_actors.concurrency.doorbell import Doorbell
from jq_actors.transport.port import Outgoing


class Delays:
    """Holds messages back, in one task for all, and calls ``release`` with each when it is due."""

    def __init__(self, clock: Clock, release: Callable[[Outgoing], None]) -> None:
        self._clock, self._release = clock, release
        self._pending: list[tuple[float, int, Outgoing]] = []
        self._arrivals = 0
        self._bell = Doorbell(clock)
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, delay: timedelta, outgoing: Outgoing) -> None:
        """Hold ``outgoing`` back for ``delay`` from now."""
        self._arrivals += 1
        due = self._clock.monotonic() + delay.total_seconds()
        heapq.heappush(self._pending, (due, self._arrivals, outgoing))
        if self._pending[0][1] == self._arrivals:
            self._bell.ring()

    def start(self) -> None:
        """Begin to release messages that are due."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="embedded delays")

    async def stop(self) -> None:
        """Stop releasing. The messages stay, for a later `start`."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _run(self) -> None:
        while True:
            while self._pending and self._pending[0][0] <= self._clock.monotonic():
                self._release(heapq.heappop(self._pending)[2])
            next_due = self._pending[0][0] - self._clock.monotonic() if self._pending else None
            await self._bell.wait(next_due)
