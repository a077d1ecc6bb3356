"""Runs the questions of `jobs` on the I/O loop, for a thread or for a coroutine of any loop."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from jq_actors.process.installed import installed_broker
from jq_actors.process.runtime import Runtime
from jq_actors.store.port import JobStore

T = TypeVar("T")

Question = Callable[[Runtime, JobStore], Coroutine[Any, Any, T]]
"""Makes the coroutine that answers, which runs on the I/O loop."""

MAX_PAGE = 1000
"""The most rows that one call reads or changes."""


def call_sync(what: str, ask: Question[T]) -> T:
    """Ask from a thread, and block until the answer is there.

    Raises:
      RequiresPersistenceError: persistence is off; the error names ``what``.
      RuntimeStateError: called on one of the runtime's own loops.
    """
    runtime = installed_broker().runtime
    return runtime.io.call(ask(runtime, runtime.require_store(what)))


async def read(what: str, ask: Question[T]) -> T:
    """Read from a coroutine; cancelling the caller cancels the read. Raises what `call_sync` raises."""
    runtime = await installed_broker().runtime_async()
    return await runtime.io.run(ask(runtime, runtime.require_store(what)), cancel=True)


async def write(what: str, ask: Question[T]) -> T:
    """Change rows from a coroutine; the change completes even if the caller is cancelled. Raises as `call_sync`."""
    runtime = await installed_broker().runtime_async()
    return await runtime.io.run(ask(runtime, runtime.require_store(what)))


def check_limit(limit: int) -> int:
    """Return ``limit`` if one call may read or change that many rows.

    Raises:
      ValueError: it is out of range.
    """
    if not 1 <= limit <= MAX_PAGE:
        raise ValueError(f"limit is {limit}; allowed are 1 to {MAX_PAGE}.")
    return limit
