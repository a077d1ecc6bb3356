"""A sleep that can be cut short: it ends when the time is over, or when somebody rings."""

from __future__ import annotations

import asyncio
from typing import Any

from jq_actors.clock import Clock


class Doorbell:
    """Wakes one sleeper; any number of callers may ring, all on one loop.

    A ring while nobody sleeps is remembered: the next `wait` returns at once.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wake the sleeper, or the next one."""
        self._rung.set()

    async def wait(self, seconds: float | None = None) -> bool:
        """Sleep for ``seconds`` (``None``: without limit), or until `ring`; returns whether somebody rang."""
        if not self._rung.is_set():
            await self._ring_or_time(seconds)
        rung = self._rung.is_set()
        self._rung.clear()
        return rung

    async def _ring_or_time(self, seconds: float | None) -> None:
        waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(self._rung.wait())]
        if seconds is not None:
            waits.append(asyncio.ensure_future(self._clock.sleep(seconds)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
