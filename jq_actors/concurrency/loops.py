"""Event loops in threads of their own. A worker process has two.

The *I/O loop* serves the broker, the store and the executor's bookkeeping; the *actor loop* runs the users' coroutines.
They are separate so that a blocking actor starves neither heartbeats nor leases (A32).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import sys
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from jq_actors.errors import RuntimeStateError

from .daemon_pool import DaemonPool

T = TypeVar("T")

if sys.platform == "win32":
    _new_loop = asyncio.new_event_loop
else:
    from uvloop import new_event_loop as _new_loop


class LoopThread:
    """An event loop in a daemon thread. It can be started and stopped once.

    Parameters:
      name: name of the thread, also used in errors.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.loop = _new_loop()
        if sys.platform != "win32":  # asyncio's own loops accept only the standard library's pool
            self.loop.set_default_executor(DaemonPool(name))
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._calls: set[Future[Any]] = set()
        self._lock = threading.Lock()  # a call is submitted before the loop is stopped, or not at all
        self._is_stopped = self._is_over = False

    def start(self) -> None:
        """Start the thread, and return when the loop is running.

        Raises:
          RuntimeStateError: the loop was stopped, or the interpreter is shutting down and starts no more threads.
        """
        turning = threading.Event()
        try:
            with self._lock:
                if self._is_stopped:
                    raise self._stopped()
                self.loop.call_soon(turning.set)
                self._thread.start()
        except RuntimeError as error:
            self.stop()
            raise RuntimeStateError(f"The {self.name} loop cannot start: {error}") from error
        turning.wait()

    @property
    def ident(self) -> int | None:
        """The thread's identifier, as ``threading.get_ident`` gives it."""
        return self._thread.ident

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on this loop's thread."""
        return threading.get_ident() == self._thread.ident

    @property
    def is_alive(self) -> bool:
        """Whether the loop is still running."""
        return self._thread.is_alive() and not self.loop.is_closed()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run ``coroutine`` on the loop; returns the future of its result. Cancelling the future cancels the coroutine.

        Raises:
          RuntimeStateError: the loop was stopped; ``coroutine`` did not start.
        """
        with self._lock:
            if self._is_stopped:
                coroutine.close()
                raise self._stopped()
            call = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
            self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        return call

    def call(self, coroutine: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run ``coroutine`` on the loop, and wait up to ``timeout`` seconds (``None``: without limit) for its result.

        Raises:
          RuntimeStateError: the caller runs on the loop itself, which would wait for itself for ever; or the loop was
            stopped, before or during the call.
          TimeoutError: ``coroutine`` did not finish in time. It continues.
        """
        if self.is_current:
            coroutine.close()
            raise RuntimeStateError(
                f"A blocking call on the {self.name} loop would wait for that loop for ever; use the `_async` twin."
            )
        try:
            return self.submit(coroutine).result(timeout)
        except concurrent.futures.CancelledError:
            raise self._stopped_meanwhile() from None

    async def run(self, coroutine: Coroutine[Any, Any, T], *, cancel: bool = False) -> T:
        """Run ``coroutine`` on the loop, from a coroutine of any loop; returns its result.

        Cancelling the caller does not cancel ``coroutine``, since a half-done send must not tear a channel (A12).

        Parameters:
          coroutine: what to run.
          cancel: whether cancelling the caller cancels ``coroutine`` all the same; for reads.

        Raises:
          RuntimeStateError: the loop was stopped, before or during the call.
        """
        if self.is_current:
            return await coroutine
        call = self.submit(coroutine)
        end = asyncio.wrap_future(call)
        try:
            return await (end if cancel else asyncio.shield(end))
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if call.cancelled() and caller is not None and not caller.cancelling():
                raise self._stopped_meanwhile() from None  # the loop's end cancelled it; nobody cancelled the caller
            raise

    def stop(self, timeout: float = 3.0) -> None:
        """Cancel everything on the loop; the loop closes when all of it has ended. Further calls do nothing.

        Waits at most ``timeout`` seconds; after that, the thread is left to itself. Calls that have not ended by then
        get a `RuntimeStateError`, so that no caller waits for ever for a loop that is gone.

        Raises:
          RuntimeStateError: the caller runs on the loop itself.
        """
        if self.is_current:
            raise RuntimeStateError(f"The {self.name} loop cannot be stopped from within.")
        with self._lock:
            if self._is_stopped:
                return
            self._is_stopped = True
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._end(), self.loop)
            self._thread.join(timeout)
        else:
            self.loop.close()
        for call in tuple(self._calls):
            with contextlib.suppress(concurrent.futures.InvalidStateError):  # the call has just ended
                call.set_exception(self._stopped_meanwhile())

    def _stopped(self) -> RuntimeStateError:
        return RuntimeStateError(f"The {self.name} loop was stopped.")

    def _stopped_meanwhile(self) -> RuntimeStateError:
        return RuntimeStateError(f"The {self.name} loop was stopped in the middle of this call.")

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        while not self._is_over:
            try:
                self.loop.run_forever()
            except (SystemExit, KeyboardInterrupt) as error:
                # asyncio lets these two escape from a task, which stops the loop with all its other tasks. A task that
                # an actor has started must not be able to do that. Whoever awaits the task still gets the exception.
                message = f"{type(error).__name__} was raised in a task of the {self.name} loop, which goes on"
                self.loop.call_exception_handler({"message": message, "exception": error})
        self.loop.close()

    async def _end(self) -> None:
        try:
            await _cancel_all()
        finally:
            self._is_over = True
            self.loop.stop()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    await asyncio.get_running_loop().shutdown_asyncgens()
