"""How the functions of `jobs` come to the rows: on the I/O loop, from a thread or from a coroutine of any loop."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from jq_actors.process.installed import installed_broker
from jq_actors.process.runtime import Runtime
from jq_actors.store.port import JobStore

T = TypeVar("T")

Question = Callable[[Runtime, JobStore], Coroutine[Any, Any, T]]
"""Made anew for each call, and run on the I/O loop."""
MAX_PAGE = 1000
"""Most rows that one call reads or changes."""


def call(what: str, ask: Question[T]) -> T:
    """Ask from a thread, and wait.

    Raises:
      RequiresPersistenceError: there are no rows; it names ``what``.
      RuntimeStateError: called on a loop of ours.
    """
    runtime = installed_broker().runtime
    return runtime.io.call(ask(runtime, runtime.require_store(what)))


async def look(what: str, ask: Question[T]) -> T:
    """Ask from a coroutine what changes nothing: a cancelled caller ends it. Raises as `call` does."""
    runtime = await installed_broker().runtime_async()
    return await runtime.io.run(ask(runtime, runtime.require_store(what)), cancel=True)


async def change(what: str, ask: Question[T]) -> T:
    """Ask from a coroutine for a change: a cancelled caller does not tear it. Raises as `call` does."""
    runtime = await installed_broker().runtime_async()
    return await runtime.io.run(ask(runtime, runtime.require_store(what)))


def check_limit(limit: int) -> int:
    """``limit``, if one call may be about so many rows.

    Raises:
      ValueError: says what is allowed.
    """
    if not 1 <= limit <= MAX_PAGE:
        raise ValueError(f"limit is {limit}; allowed are 1 to {MAX_PAGE}.")
    return limit
