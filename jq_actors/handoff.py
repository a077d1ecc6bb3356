"""The seam with Dramatiq for sync actors: a job goes through ``Consumer.__next__`` to a ``WorkerThread`` and back.

Dramatiq runs it exactly as its own: its thread-based middleware works unchanged. What comes back through ``ack`` or
``nack`` is the actor's value or exception. Only Dramatiq's public API is used (DESIGN §8).
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import queue
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import dramatiq
from dramatiq.broker import MessageProxy
from dramatiq.middleware import Interrupt

from .current import RunningJob


class JobProxy(MessageProxy):
    """A job in Dramatiq's hands: its message, with the arguments as the actor takes them."""

    def __init__(self, job: RunningJob, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__(job.command)
        self.job = job
        self.args, self.kwargs = args, kwargs
        self.result: Any = None
        self.raised: BaseException | None = None
        self._context = contextvars.copy_context()
        self._tokens: list[tuple[contextvars.ContextVar[Any], contextvars.Token[Any]]] = []

    def stuff_exception(self, exception: BaseException) -> None:
        """Keep what the actor, or a middleware that skips, raised."""
        super().stuff_exception(exception)
        self.raised = exception

    def enter_context(self) -> None:
        """Set the context variables of the run (the current job, a trace) in this thread."""
        self._tokens = [(variable, variable.set(value)) for variable, value in self._context.items()]

    def leave_context(self) -> None:
        """Set them back."""
        while self._tokens:
            variable, token = self._tokens.pop()
            variable.reset(token)


class Handoff:
    """Sync jobs on their way to the worker threads: one line for each queue."""

    def __init__(self) -> None:
        self._lines: defaultdict[str, queue.SimpleQueue[_Handed]] = defaultdict(queue.SimpleQueue)
        logging.getLogger("dramatiq.worker.WorkerThread").addFilter(_tells_the_truth)

    async def run(self, proxy: JobProxy) -> None:
        """Have a worker thread run ``proxy``, and return when it is done; on the actor loop.

        When the caller is cancelled (time limit, shutdown) the thread is interrupted, and waited for: an attempt is
        not over before its code has stopped.
        """
        handed = _Handed(proxy, asyncio.get_running_loop())
        self._lines[proxy.queue_name].put(handed)
        try:
            await asyncio.shield(handed.done)
        except asyncio.CancelledError:
            not_begun = proxy.job.thread.interrupt()
            if not_begun:
                raise
            await self._end_of(handed)
            if isinstance(proxy.raised, Interrupt):
                raise
            # It came to its end all the same: that is its outcome.

    async def _end_of(self, handed: _Handed) -> None:
        while not handed.done.done():
            with contextlib.suppress(asyncio.CancelledError):  # already interrupted; only its end can end this
                await asyncio.shield(handed.done)

    def consumer(self, queue_name: str, timeout: int) -> HandoffConsumer:
        """What Dramatiq's consumer thread of ``queue_name`` iterates; ``timeout`` in milliseconds."""
        return HandoffConsumer(self._lines[queue_name], timeout / 1000)


class _Handed:
    __slots__ = ("done", "loop", "proxy")

    def __init__(self, proxy: JobProxy, loop: asyncio.AbstractEventLoop) -> None:
        self.proxy, self.loop = proxy, loop
        self.done: asyncio.Future[None] = loop.create_future()

    def finish(self) -> None:
        self.loop.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class HandoffConsumer(dramatiq.Consumer):
    """Hands the jobs of one queue to Dramatiq, and takes them back."""

    def __init__(self, line: queue.SimpleQueue[_Handed], timeout: float) -> None:
        self._line, self._timeout = line, timeout
        self._out: dict[int, _Handed] = {}

    def __next__(self) -> JobProxy | None:
        """The next sync job, or ``None`` after the timeout."""
        try:
            handed = self._line.get(timeout=self._timeout)
        except queue.Empty:
            return None
        self._out[id(handed.proxy)] = handed
        return handed.proxy

    def ack(self, message: MessageProxy) -> None:
        """The worker thread is done with it; its outcome decides what becomes of the delivery."""
        self._out.pop(id(message)).finish()

    def nack(self, message: MessageProxy) -> None:
        """Like ``ack``: `failed` is on the proxy."""
        self._out.pop(id(message)).finish()

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Nothing: the drain has already ended or interrupted every job before Dramatiq gets here."""


def _tells_the_truth(record: logging.LogRecord) -> bool:
    # Dramatiq warns about each value that is not kept by its own Results backend, and logs each exception: here
    # values are kept, and `JobFailed` / `JobRetryScheduled` tell of exceptions.
    text = str(record.msg)
    return "returned a value that is not None" not in text and "with unhandled exception" not in text
