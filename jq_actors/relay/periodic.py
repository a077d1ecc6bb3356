"""What the relay does again and again, each at its own pace."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Look:
    """One kind of look, and when it comes next."""

    name: str
    call: Callable[[], Coroutine[Any, Any, int]]
    pause: Callable[[], float]
    """Seconds to the next one."""
    pace: float = 0.0
    """Seconds to the next one after a full batch."""
    next_at: float = 0.0
    error: str | None = None
    """What it failed with the last time."""
