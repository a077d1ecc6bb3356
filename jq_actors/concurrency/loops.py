"""The two threads of ours: an event loop each.

The *I/O loop* serves the broker, the store and the executor's bookkeeping; the *actor loop* runs the users'
coroutines. They are apart so that an actor that blocks starves neither heartbeats nor leases (A32).
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
    """An event loop in a daemon thread of its own. Start it once; stop it once."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.loop = _new_loop()
        if sys.platform != "win32":  # asyncio's own loops take the standard library's pool only
            self.loop.set_default_executor(DaemonPool(name))
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._calls: set[Future[Any]] = set()
        self._lock = threading.Lock()  # a call is submitted before the loop is stopped, or not at all
        self._is_stopped = self._is_over = False

    def start(self) -> None:
        """Start the thread, and return when the loop turns.

        Raises:
          RuntimeStateError: it was stopped; or the interpreter is ending, and starts no thread any more.
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
        """Whether the caller runs on this very thread."""
        return threading.get_ident() == self._thread.ident

    @property
    def is_alive(self) -> bool:
        """Whether it still turns."""
        return self._thread.is_alive() and not self.loop.is_closed()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run ``coroutine`` on the loop. The future is its result; cancelling the future cancels it.

        Raises:
          RuntimeStateError: the loop was stopped; nothing of ``coroutine`` ran.
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
        """Run ``coroutine`` on the loop and wait for it, up to ``timeout`` seconds.

        Raises:
          RuntimeStateError: called on the loop itself, where waiting would be for ever; or the loop was stopped,
            perhaps in the middle of it.
          TimeoutError: it did not end in time; it goes on.
        """
        if self.is_current:
            coroutine.close()
            raise RuntimeStateError(
                f"A blocking call was made on the {self.name} loop, which it would wait for; use the `_async` twin."
            )
        try:
            return self.submit(coroutine).result(timeout)
        except concurrent.futures.CancelledError:
            raise self._stopped_meanwhile() from None

    async def run(self, coroutine: Coroutine[Any, Any, T], *, cancel: bool = False) -> T:
        """Run ``coroutine`` on the loop from a coroutine of any loop.

        A cancelled caller does not cancel what runs here: a half-done send must not tear a channel (A12). Only with
        ``cancel``: for what merely looks.

        Raises:
          RuntimeStateError: the loop was stopped, perhaps in the middle of it.
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
                raise self._stopped_meanwhile() from None  # nobody has cancelled the caller
            raise

    def stop(self, timeout: float = 3.0) -> None:
        """Cancel what still runs on the loop; it closes when all that has ended. Later calls do nothing.

        After ``timeout`` seconds it is left to itself. Calls that have not ended by then get a `RuntimeStateError`:
        nobody waits for ever for a loop that is gone.
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
            with contextlib.suppress(concurrent.futures.InvalidStateError):  # it has just ended after all
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
                # asyncio lets these two out of a task, and so ends the loop with all the others: a task that an actor
                # has started must not have that power. The one who awaits it gets the exception all the same.
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
