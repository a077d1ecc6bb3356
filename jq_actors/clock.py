"""Time and chance as a dependency.

Nothing below the command line calls ``time.time``, ``datetime.now``, ``random`` or a bare
``asyncio.sleep``: it asks a :class:`Clock`, so that a test can hold time still and replay chance.
"""

from __future__ import annotations

import asyncio
import random  # noqa: TID251 - this module is what everybody else asks
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
        return _SYSTEM_RANDOM.getrandbits(bits)


_SYSTEM_RANDOM = random.SystemRandom()
