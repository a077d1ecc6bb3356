"""The two threads of ours: an event loop each.

The *I/O loop* serves the broker, the store and the executor's bookkeeping; the *actor loop* runs the users'
coroutines. They are apart so that an actor that blocks starves neither heartbeats nor leases (A32).
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from .errors import RuntimeStateError

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
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread, and return when the loop turns.

        Raises:
          RuntimeStateError: the interpreter is ending; it starts no thread any more.
        """
        turning = threading.Event()
        self.loop.call_soon(turning.set)
        try:
            self._thread.start()
        except RuntimeError as error:
            raise RuntimeStateError(f"The {self.name} loop cannot start: {error}.") from error
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
        """Run ``coroutine`` on the loop. The future is its result; cancelling the future cancels it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def call(self, coroutine: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run ``coroutine`` on the loop and wait for it, up to ``timeout`` seconds.

        Raises:
          RuntimeStateError: called on the loop itself, where waiting would be for ever.
          TimeoutError: it did not end in time; it goes on.
        """
        if self.is_current:
            coroutine.close()
            raise RuntimeStateError(
                f"A blocking call was made on the {self.name} loop, which it would wait for; use the `_async` twin."
            )
        return self.submit(coroutine).result(timeout)

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run ``coroutine`` on the loop from a coroutine of any loop.

        A cancelled caller does not cancel what runs here: a half-done send must not tear a channel (A12).
        """
        if self.is_current:
            return await coroutine
        return await asyncio.shield(asyncio.wrap_future(self.submit(coroutine)))

    def stop(self, timeout: float = 5.0) -> None:
        """Cancel what still runs on the loop, end the thread and close the loop."""
        if not self._thread.is_alive():
            return
        self.submit(_cancel_all()).add_done_callback(lambda _: self.loop.call_soon_threadsafe(self.loop.stop))
        self._thread.join(timeout)
        if not self._thread.is_alive():
            self.loop.close()

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=3) if tasks else None
    await asyncio.get_running_loop().shutdown_asyncgens()
