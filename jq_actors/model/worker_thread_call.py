"""A sync actor's place in one of Dramatiq's worker threads, and how its run is interrupted there."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from dramatiq.middleware import Interrupt, SkipMessage, TimeLimitExceeded
from dramatiq.middleware import threading as dramatiq_threading

T = TypeVar("T")


class WorkerThreadCall:
    """Where one sync job sits: taken when its actor is called in a worker thread, left when the actor has returned.

    An interrupt is raised in the thread at most once, and only within `call`: never in the next job of the same
    thread, never in Dramatiq's own code around it, which would end the thread (dramatiq#445).
    """

    __slots__ = ("_ident", "_lock", "_withdrawn", "interrupt_with")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ident: int | None = None
        self._withdrawn = False
        self.interrupt_with: type[Interrupt] = TimeLimitExceeded
        """What `interrupt` raises in the thread."""

    def call(self, fn: Callable[..., T], args: Sequence[Any], kwargs: Mapping[str, Any]) -> T:
        """Call ``fn`` in this thread. Here, and only here, `interrupt` can hit.

        Raises:
          SkipMessage: the job was withdrawn before; nothing was called.
          Interrupt: it was interrupted.
          BaseException: whatever ``fn`` raises.
        """
        try:
            self._take()
            return fn(*args, **kwargs)
        finally:
            try:
                self._leave()
            finally:
                self._leave()  # an interrupt that hits while leaving: it was the only one, nothing hits this time

    @property
    def is_withdrawn(self) -> bool:
        """Whether it must not begin any more."""
        return self._withdrawn

    def interrupt(self) -> bool:
        """Raise ``interrupt_with`` in the thread, or withdraw the job if it has not begun.

        Returns whether it had not begun. Code that never returns to the interpreter (a C call, a long ``sleep``)
        sees the interrupt only when it does.
        """
        with self._lock:
            first, self._withdrawn = not self._withdrawn, True
            if self._ident is None:
                return True
            if first:
                _raise_in_thread(self._ident, self.interrupt_with)
            return False

    def _take(self) -> None:
        with self._lock:
            if self._withdrawn:
                raise SkipMessage("withdrawn before it began")
            self._ident = threading.get_ident()

    def _leave(self) -> None:
        with self._lock:
            if self._ident is not None:
                # An interrupt may be set and not yet delivered: take it back.
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_long(self._ident), None)
                self._ident = None


def _raise_in_thread(ident: int, exception: type[Interrupt]) -> None:
    dramatiq_threading.raise_thread_exception(ident, exception)  # type: ignore[no-untyped-call]  # untyped in Dramatiq
