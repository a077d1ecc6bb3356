"""Natural group commit: what waits while one write is under way goes into the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic

from jq_actors.clock import Clock
from jq_actors.errors import StoreUnavailableError
from jq_actors.events import Events

from .batches import MAX_BATCH, MAX_BYTES, Answer, Batches, Entry, Item, Write
from .set_aside import SetAside


class GroupCommit(Generic[Item, Answer]):
    """Collects items and writes them together, in a task of its own.

    A write starts at once when none is under way, and takes all that wait, up to ``limit`` items or ``max_bytes``. No
    timer: an idle store answers at once, a busy one in large batches. A caller that is cancelled changes nothing: its
    item is written, and ``abandoned`` is told the answer that nobody waits for.

    A refused batch is halved until the bad item is alone; only its caller gets the error. What fails for another
    reason is `SetAside`, and does not hold up what comes after it.

    Args:
      kind: its name in `StoreFlushed`.
      write: see `Write`.
      answers: whether the database answers at all; does not raise.
      patient: while the database is away, keep the items and try again; else their callers get the error.
      abandoned: called with an item and its answer when its caller is gone.
      size: the bytes of an item, more or less; not given, they do not matter. Does not raise.
    """

    def __init__(
        self,
        kind: str,
        write: Write[Item, Answer],
        *,
        answers: Callable[[], Awaitable[bool]],
        clock: Clock,
        events: Events,
        patient: bool = True,
        abandoned: Callable[[Item, Answer], None] | None = None,
        size: Callable[[Item], int] | None = None,
        limit: int = MAX_BATCH,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._batches = Batches(
            kind, write, clock=clock, events=events, abandoned=abandoned, limit=limit, max_bytes=max_bytes
        )
        self._aside = SetAside(self._batches, answers, clock=clock, patient=patient)
        self._size = size
        self._waiting: list[Entry[Item, Answer]] = []
        self._taken: list[Entry[Item, Answer]] = []
        self._flusher: asyncio.Task[None] | None = None
        self._closed = False

    def add(self, item: Item) -> asyncio.Future[Answer]:
        """Write ``item`` with the next batch; the future has its answer once that is committed."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        entry = Entry(item, 0 if self._size is None else self._size(item), future)
        if self._closed:
            self._batches.close([entry])
            return future
        self._waiting.append(entry)
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._flush(), name=f"store-{self._batches.kind}")
        return future

    async def close(self, timeout: float) -> None:
        """Take nothing more; write what waits, for at most ``timeout`` seconds.

        What is not written by then ends with `StoreUnavailableError`.
        """
        self._closed = True
        try:
            async with asyncio.timeout(timeout):
                while tasks := self._tasks():
                    await asyncio.wait(tasks)
        except TimeoutError:
            tasks = self._tasks()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        self._batches.close([*self._taken, *self._waiting, *self._aside.entries])

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [task for task in (self._flusher, self._aside.task) if task is not None]

    async def _flush(self) -> None:
        try:
            while self._waiting:
                await self._aside.may_write.wait()
                self._taken = self._batches.first_of(self._waiting, self._batches.limit)
                del self._waiting[: len(self._taken)]
                await self._commit(self._taken, may_be_committed=False)
        finally:
            self._flusher = None

    async def _commit(self, batch: list[Entry[Item, Answer]], *, may_be_committed: bool) -> None:
        error = await self._batches.write(batch, may_be_committed=may_be_committed)
        if error is None:
            return
        if isinstance(error, StoreUnavailableError):
            self._aside.put(batch, error)
        elif len(batch) == 1:
            self._batches.refuse(batch[0], error)
        else:
            # In their order, and with the others waiting: of jobs that are sent, the earlier one comes first. What
            # needs one statement alone may have been committed before the rest was refused.
            middle = len(batch) // 2
            await self._commit(batch[:middle], may_be_committed=True)
            await self._commit(batch[middle:], may_be_committed=True)
