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
from collections.abc import Callable, Iterable
from typing import Any

import dramatiq
from dramatiq.broker import MessageProxy
from dramatiq.middleware import Interrupt, SkipMessage

from jq_actors.model.running_job import RunningJob
from jq_actors.model.worker_thread_call import WorkerThreadCall


class JobProxy(MessageProxy):
    """A job in Dramatiq's hands: its message, with the arguments as the actor takes them."""

    def __init__(self, job: RunningJob, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__(job.command)
        self.job = job
        self.args, self.kwargs = args, kwargs
        if "eta" in job.command.options:
            # From a plain Dramatiq producer. The time has come; Dramatiq's consumer would wait for it, and send a copy.
            self.options = {name: value for name, value in job.command.options.items() if name != "eta"}
        self.result: Any = None
        self.raised: BaseException | None = None
        self._context = contextvars.copy_context()
        self._tokens: list[tuple[contextvars.ContextVar[Any], contextvars.Token[Any]]] = []
        self._done: asyncio.Future[None] | None = None

    def stuff_exception(self, exception: BaseException) -> None:
        """Keep what the actor, or a middleware that skips, raised."""
        super().stuff_exception(exception)
        self.raised = exception

    def enter_context(self) -> None:
        """Set the context variables of the run (the current job, a trace) in this thread, and await its actor's call.

        Raises:
          SkipMessage: the job was withdrawn, it must not run any more.
        """
        if self.job.thread.is_withdrawn:
            raise SkipMessage("withdrawn before it began")
        for variable, value in (*self._context.items(), (_handed, self)):
            self._tokens.append((variable, variable.set(value)))

    def leave_context(self) -> None:
        """Reset the context variables of the run."""
        while self._tokens:
            variable, token = self._tokens.pop()
            variable.reset(token)

    def hand_over(self) -> asyncio.Future[None]:
        """Give the job to a worker thread; the future (of the running loop) resolves when the thread is done."""
        self._done = asyncio.get_running_loop().create_future()
        return self._done

    def hand_back(self) -> None:
        """The worker thread is done with it."""
        done = self._done
        assert done is not None
        with contextlib.suppress(RuntimeError):  # at a forced end: the loop is closed, and nobody waits any more
            done.get_loop().call_soon_threadsafe(_finish, done)


def _finish(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


_handed: contextvars.ContextVar[JobProxy | None] = contextvars.ContextVar("jq_actors.handed", default=None)
"""The job that this worker thread has been given, until its actor is called."""


def call_actor(name: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call ``fn`` of the actor ``name``: through `WorkerThreadCall` if this worker thread is here for that very call.

    Then also in a copy of the thread's context: what the actor sets in it does not show in the thread's next job.
    """
    proxy = _handed.get()
    if proxy is None or proxy.actor_name != name:
        return fn(*args, **kwargs)
    return contextvars.copy_context().run(_call_in_thread, proxy.job.thread, fn, args, kwargs)


def _call_in_thread(
    thread_call: WorkerThreadCall, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    _handed.set(None)  # an actor that calls itself calls a function
    return thread_call.call(fn, args, kwargs)


class Handoff:
    """Sync jobs on their way to the worker threads: one line for each queue."""

    def __init__(self) -> None:
        self._lines: dict[str, queue.SimpleQueue[JobProxy]] = {}
        logging.getLogger("dramatiq.worker.WorkerThread").addFilter(_is_relevant)

    async def run(self, proxy: JobProxy) -> None:
        """Have a worker thread run ``proxy``, and return when it is done; on the actor loop.

        When the caller is cancelled (time limit, shutdown) the thread is interrupted, and waited for: an attempt is
        not over before its code has stopped.
        """
        done = proxy.hand_over()
        self._line(proxy.queue_name).put(proxy)
        try:
            await asyncio.shield(done)
        except asyncio.CancelledError:
            not_begun = proxy.job.thread.interrupt()
            if not_begun:
                raise
            await _end_of(done)
            if isinstance(proxy.raised, Interrupt):
                raise
            # The actor finished in spite of the interrupt: what it returned or raised is the outcome.

    def consumer(self, queue_name: str, timeout: int) -> HandoffConsumer:
        """What Dramatiq's consumer thread of ``queue_name`` iterates; ``timeout`` in milliseconds."""
        return HandoffConsumer(self._line(queue_name), timeout / 1000)

    def _line(self, queue_name: str) -> queue.SimpleQueue[JobProxy]:
        # In one step: both sides may be the first to ask for it.
        return self._lines.setdefault(queue_name, queue.SimpleQueue())


async def _end_of(done: asyncio.Future[None]) -> None:
    while not done.done():
        with contextlib.suppress(asyncio.CancelledError):  # already interrupted; keep waiting until it finishes
            await asyncio.shield(done)


class HandoffConsumer(dramatiq.Consumer):
    """Hands the jobs of one queue to Dramatiq, and takes them back.

    It remembers none of them: Dramatiq makes another consumer when it was paused, which then gets them back.
    """

    def __init__(self, line: queue.SimpleQueue[JobProxy], timeout: float) -> None:
        self._line, self._timeout = line, timeout

    def __next__(self) -> JobProxy | None:
        """The next sync job, or ``None`` after the timeout."""
        try:
            return self._line.get(timeout=self._timeout)
        except queue.Empty:
            return None

    def ack(self, message: MessageProxy) -> None:
        """The worker thread is done with it; its outcome decides what becomes of the delivery."""
        assert isinstance(message, JobProxy)
        message.hand_back()

    def nack(self, message: MessageProxy) -> None:
        """Like ``ack``: `failed` is on the proxy."""
        self.ack(message)

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Do nothing: the drain has already ended or interrupted every job before Dramatiq gets here."""


def _is_relevant(record: logging.LogRecord) -> bool:
    # Dramatiq warns about each value that is not kept by its own Results backend, and logs each exception: here
    # values are kept, and `JobFailed` / `JobRetryScheduled` report exceptions.
    text = str(record.msg)
    return "returned a value that is not None" not in text and "with unhandled exception" not in text
