"""Blocking work beside a loop, also when the interpreter is ending."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """What ``work`` returns or raises, called in a thread of its own; not for work that comes often.

    As ``asyncio.to_thread``, whose pool is shut before anything runs that was registered with ``atexit``: a job that is
    sent from there, perhaps the first of its process, could not open the database. A cancelled caller does not wait.
    """
    end: Future[T] = Future()
    end.set_running_or_notify_cancel()
    threading.Thread(target=carry_out, args=(work, end), name="jq-work", daemon=True).start()
    return await asyncio.wrap_future(end)


def carry_out(work: Callable[[], T], end: Future[T]) -> None:
    """Call ``work``, and let ``end`` have what it returns or raises."""
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
        end.set_exception(error)
    else:
        end.set_result(result)
