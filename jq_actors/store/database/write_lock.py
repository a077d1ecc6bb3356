"""A lock among the writers of one process, which lets who is urgent go first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class WriteLock:
    """Held by one at a time; in order, but that who is urgent waits for two at most."""

    def __init__(self) -> None:
        self._queue, self._lock = asyncio.Lock(), asyncio.Lock()

    @asynccontextmanager
    async def held(self, *, urgent: bool) -> AsyncIterator[None]:
        """Wait for it, hold it, and let go of it."""
        if urgent:
            await self._lock.acquire()
        else:
            # Of all these only one waits for the lock itself.
            async with self._queue:
                await self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()
