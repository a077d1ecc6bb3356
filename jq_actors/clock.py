"""Time and chance as a dependency.

Nothing below the command line calls ``time.time``, ``datetime.now``, ``random`` or a bare
``asyncio.sleep``: it asks a :class:`Clock`, so that a test can hold time still and replay chance.
"""

from __future__ import annotations

import asyncio
import os
import random  # noqa: TID251 - this module is what everybody else asks
import threading
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where time and chance come from."""

    def wall(self) -> datetime:
        """The time of day, aware, UTC: for what is stored or shown. It may jump."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary start: for durations and deadlines. It never goes back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Suspend the current task for ``seconds``."""
        ...

    def random(self) -> float:
        """A number in [0, 1)."""
        ...

    def random_bits(self, bits: int) -> int:
        """An unpredictable integer of ``bits`` bits, good enough for identifiers."""
        ...


class SystemClock:
    """The machine's own clock. The only place in the package that reads it."""

    def wall(self) -> datetime:
        """The machine's time of day in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """The machine's monotonic clock."""
        return time.monotonic()  # noqa: TID251 - this class is what everybody else asks

    async def sleep(self, seconds: float) -> None:
        """Sleep on the running loop."""
        await asyncio.sleep(seconds)

    def random(self) -> float:
        """From the process-wide generator."""
        return random.random()  # noqa: S311 - jitter, not a secret

    def random_bits(self, bits: int) -> int:
        """From the operating system: processes that forked a moment ago must not agree."""
        size = (bits + 7) // 8
        return int.from_bytes(_ENTROPY.take(size), "big") >> (8 * size - bits)


class _Entropy(threading.local):
    """Random bytes of the operating system, asked for many at a time: each time a thread lets the others go first."""

    def __init__(self) -> None:
        self._bytes, self._at = b"", 0

    def take(self, size: int) -> bytes:
        """So many bytes that nobody else gets."""
        if self._at + size > len(self._bytes):
            self._bytes, self._at = os.urandom(max(4096, size)), 0
        taken = self._bytes[self._at : self._at + size]
        self._at += size
        return taken

    def forget(self) -> None:
        """A process that was forked begins anew."""
        self._bytes, self._at = b"", 0


_ENTROPY = _Entropy()
os.register_at_fork(after_in_child=_ENTROPY.forget)
