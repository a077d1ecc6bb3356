"""Time and randomness as a dependency.

Nothing below the command line calls ``time.time``, ``datetime.now``, ``random`` or a bare
``asyncio.sleep``: code there uses a :class:`Clock`, so that a test can stop time and replay random numbers.
"""

from __future__ import annotations

import asyncio
import os
import random  # noqa: TID251 - all other modules use this one
import threading
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """A source of time and randomness."""

    def wall(self) -> datetime:
        """The time of day in UTC, as an aware datetime, for storing and showing. It may jump."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary start: for durations and deadlines. It never goes backwards."""
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
    """The machine's clock. Nothing else in the package reads it."""

    def wall(self) -> datetime:
        """The machine's time of day in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """The machine's monotonic clock."""
        return time.monotonic()  # noqa: TID251 - all other modules use this class

    async def sleep(self, seconds: float) -> None:
        """Sleep on the running loop."""
        await asyncio.sleep(seconds)

    def random(self) -> float:
        """A number from the process-wide generator."""
        return random.random()  # noqa: S311 - jitter, not a secret

    def random_bits(self, bits: int) -> int:
        """Bits from the operating system: freshly forked processes must not draw the same ones."""
        size = (bits + 7) // 8
        return int.from_bytes(_ENTROPY.take(size), "big") >> (8 * size - bits)


class _Entropy(threading.local):
    """Random bytes of the operating system, fetched many at a time: each fetch releases the GIL to other threads."""

    def __init__(self) -> None:
        self._bytes, self._at = b"", 0

    def take(self, size: int) -> bytes:
        """``size`` bytes that no other caller gets."""
        if self._at + size > len(self._bytes):
            self._bytes, self._at = os.urandom(max(4096, size)), 0
        taken = self._bytes[self._at : self._at + size]
        self._at += size
        return taken

    def forget(self) -> None:
        """Drop the buffered bytes: a forked process must not reuse its parent's."""
        self._bytes, self._at = b"", 0


_ENTROPY = _Entropy()
os.register_at_fork(after_in_child=_ENTROPY.forget)
