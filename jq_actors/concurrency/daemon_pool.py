"""The thread pool of an event loop, which runs what is passed to ``asyncio.to_thread``."""

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
"""As many as the standard library's pool has."""


class DaemonPool(Executor):
    """A thread pool that does not delay the end of the process.

    The standard library's pool joins its threads when the interpreter exits. With that pool, an actor whose
    ``asyncio.to_thread`` does not return would keep a drained worker alive, even after the second SIGTERM.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._line: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._threads = 0
        self._is_shut = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call ``fn`` in one of the threads as soon as one is free; returns the future of its result.

        Raises:
          RuntimeError: the pool was shut down.
        """
        end: Future[T] = Future()
        with self._lock:
            if self._is_shut:
                raise RuntimeError("The pool was shut down and takes no more work.")
            if not self._idle.acquire(blocking=False) and self._threads < MOST_THREADS:
                threading.Thread(target=self._work, name=f"{self._name}-{self._threads}", daemon=True).start()
                self._threads += 1
            self._line.put(partial(_carry_out_unless_cancelled, partial(fn, *args, **kwargs), end))
        return end

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work. Neither argument has an effect: threads are not joined, and queued work is still done."""
        with self._lock:
            self._is_shut = True
            for _ in range(self._threads):
                self._line.put(_end)

    def _work(self) -> None:
        while (work := self._line.get()) is not _end:
            work()
            del work  # or the last call would be kept alive until the next one comes
            self._idle.release()


def _end() -> None:
    """The work item that ends a thread; never called."""


def _carry_out_unless_cancelled(work: Callable[[], Any], end: Future[Any]) -> None:
    if end.set_running_or_notify_cancel():
        carry_out(work, end)
