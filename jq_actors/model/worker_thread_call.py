"""The call of a sync actor in one of Dramatiq's worker threads, and how the call is interrupted."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from dramatiq.middleware import Interrupt, SkipMessage, TimeLimitExceeded
from dramatiq.middleware import threading as dramatiq_threading

T = TypeVar("T")


class WorkerThreadCall:
    """The one call of a sync job's actor: bound to a worker thread while the actor runs, and to none before and after.

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
            self._bind()
            return fn(*args, **kwargs)
        finally:
            try:
                self._release()
            finally:
                self._release()  # in case the only interrupt hit the first release; nothing can hit this one

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

    def _bind(self) -> None:
        with self._lock:
            if self._withdrawn:
                raise SkipMessage("withdrawn before it began")
            self._ident = threading.get_ident()

    def _release(self) -> None:
        with self._lock:
            if self._ident is not None:
                # An interrupt may be set and not yet delivered: take it back.
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_long(self._ident), None)
                self._ident = None


def _raise_in_thread(ident: int, exception: type[Interrupt]) -> None:
    dramatiq_threading.raise_thread_exception(ident, exception)  # type: ignore[no-untyped-call]  # untyped in Dramatiq
