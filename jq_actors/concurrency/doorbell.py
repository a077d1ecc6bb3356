"""A sleep that can be cut short: until the time is over, or somebody rings."""

from __future__ import annotations

import asyncio
from typing import Any

from jq_actors.clock import Clock


class Doorbell:
    """One sleeper, many ringers, all on one loop.

    A ring while nobody sleeps is kept: the next sleep returns at once.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wake the sleeper."""
        self._rung.set()

    async def wait(self, seconds: float | None = None) -> bool:
        """Sleep for ``seconds`` (``None``: for ever) or until `ring`; returns whether it was rung."""
        if not self._rung.is_set():
            await self._either(seconds)
        rung = self._rung.is_set()
        self._rung.clear()
        return rung

    async def _either(self, seconds: float | None) -> None:
        waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(self._rung.wait())]
        if seconds is not None:
            waits.append(asyncio.ensure_future(self._clock.sleep(seconds)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
