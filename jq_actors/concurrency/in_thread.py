"""Run blocking work in a thread, even while the interpreter is shutting down."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """Call ``work`` in a new thread; returns or raises what it does. Not for frequent calls.

    Unlike ``asyncio.to_thread`` it works in functions that are registered with ``atexit``, since Python shuts the
    loop's pool before it calls them. A job that is sent there, if it is the first of the process, has to open the
    database. If the caller is cancelled, ``work`` continues and its result is dropped.
    """
    end: Future[T] = Future()
    end.set_running_or_notify_cancel()
    threading.Thread(target=carry_out, args=(work, end), name="jq-work", daemon=True).start()
    return await asyncio.wrap_future(end)


def carry_out(work: Callable[[], T], end: Future[T]) -> None:
    """Call ``work``, and put what it returns or raises into ``end``."""
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 - whoever waits for the future gets it
        end.set_exception(error)
    else:
        end.set_result(result)
