"""Wait for a condition, with a deadline and an error that says what did not happen."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, overload

T = TypeVar("T")

POLL = 0.02
"""Seconds between two looks, when looking costs little."""
SHARE, LONGEST = 3, 0.2
"""After an expensive look, the pause is this many times as long as the look, since the code under test needs the
machine, too; but it is never longer than this many seconds."""


class NeverHappenedError(AssertionError):
    """The condition did not become true in time."""

    def __init__(self, why: str, timeout: float, last: object) -> None:
        super().__init__(f"Waited {timeout:g} s without success for: {why}. Last seen: {last!r}.")


@overload
async def eventually(
    predicate: Callable[[], Coroutine[Any, Any, T | None]], timeout: float = 10.0, why: str = "the condition"
) -> T: ...


@overload
async def eventually(predicate: Callable[[], T | None], timeout: float = 10.0, why: str = "the condition") -> T: ...


async def eventually(predicate: Callable[[], Any], timeout: float = 10.0, why: str = "the condition") -> Any:
    """Wait until ``predicate`` (plain or async) is truthy, and return what it returned.

    Raises:
      NeverHappenedError: it was not within ``timeout`` seconds; names ``why`` and what was seen last.
    """
    deadline = time.perf_counter() + timeout
    while True:
        began = time.perf_counter()
        seen = predicate()
        value = await seen if inspect.iscoroutine(seen) else seen
        if value:
            return value
        if time.perf_counter() >= deadline:
            raise NeverHappenedError(why, timeout, value)
        await asyncio.sleep(_pause(began))


def eventually_sync(predicate: Callable[[], T | None], timeout: float = 10.0, why: str = "the condition") -> T:
    """`eventually` for tests without a loop; it blocks."""
    deadline = time.perf_counter() + timeout
    while True:
        began = time.perf_counter()
        value = predicate()
        if value:
            return value
        if time.perf_counter() >= deadline:
            raise NeverHappenedError(why, timeout, value)
        time.sleep(_pause(began))


def _pause(began: float) -> float:
    return min(LONGEST, max(POLL, SHARE * (time.perf_counter() - began)))
