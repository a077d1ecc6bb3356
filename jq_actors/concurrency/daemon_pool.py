"""The threads beside a loop: for what ``asyncio.to_thread`` is called with there."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, ParamSpec, TypeVar

from .in_thread import carry_out

P = ParamSpec("P")
T = TypeVar("T")

MOST_THREADS = min(32, (os.cpu_count() or 1) + 4)
"""As many as in the standard library's pool."""


class DaemonPool(Executor):
    """A pool whose threads do not hold up the end of the process.

    The standard library's joins its threads when the interpreter ends. With it, an actor whose ``asyncio.to_thread``
    does not return would keep a worker alive that has drained, even after the signal that forces.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._line: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._threads = 0
        self._is_shut = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call ``fn`` in one of the threads, when one is free."""
        end: Future[T] = Future()
        with self._lock:
            if self._is_shut:
                raise RuntimeError("The pool was shut; it takes no work any more.")
            if not self._idle.acquire(blocking=False) and self._threads < MOST_THREADS:
                threading.Thread(target=self._work, name=f"{self._name}-{self._threads}", daemon=True).start()
                self._threads += 1
            self._line.put(partial(_carry_out_unless_cancelled, partial(fn, *args, **kwargs), end))
        return end

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no work any more. Threads are not waited for: they are free to end, or not."""
        with self._lock:
            self._is_shut = True
            for _ in range(self._threads):
                self._line.put(_end)

    def _work(self) -> None:
        while (work := self._line.get()) is not _end:
            work()
            del work  # else the last one is kept until the next comes
            self._idle.release()


def _end() -> None:
    """Ends a thread."""


def _carry_out_unless_cancelled(work: Callable[[], Any], end: Future[Any]) -> None:
    if end.set_running_or_notify_cancel():
        carry_out(work, end)
