"""A sync actor's place in one of Dramatiq's worker threads, and how its run is interrupted there."""

from __future__ import annotations

import ctypes
import threading

from dramatiq.middleware import Interrupt, TimeLimitExceeded
from dramatiq.middleware import threading as dramatiq_threading


class ThreadSeat:
    """Where one sync job sits. It is taken by the worker thread, left when the actor has returned.

    An interrupt is raised in the thread at most once, and only while the seat is taken: never in the next job of the
    same thread, never in Dramatiq's own code around it, which would end the thread (dramatiq#445).
    """

    __slots__ = ("_ident", "_lock", "_withdrawn", "interrupt_with")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ident: int | None = None
        self._withdrawn = False
        self.interrupt_with: type[Interrupt] = TimeLimitExceeded
        """What `interrupt` raises in the thread."""

    def take(self) -> bool:
        """The current thread sits down; ``False``: the job was withdrawn before and must not run."""
        with self._lock:
            if self._withdrawn:
                return False
            self._ident = threading.get_ident()
            return True

    def leave(self) -> None:
        """The actor has returned; from here on nothing is raised in this thread any more."""
        with self._lock:
            if self._ident is None:
                return
            # An interrupt may be set and not yet delivered: take it back.
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_long(self._ident), None)
            self._ident = None

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


def _raise_in_thread(ident: int, exception: type[Interrupt]) -> None:
    dramatiq_threading.raise_thread_exception(ident, exception)  # type: ignore[no-untyped-call]  # untyped in Dramatiq
