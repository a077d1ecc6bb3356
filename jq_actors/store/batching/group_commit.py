"""Natural group commit: items that arrive during one write go into the next one."""

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
    """Collects items and writes them together in its own task.

    A write starts at once if none is under way, and takes all waiting items, up to ``limit`` items or ``max_bytes``.
    There is no timer: an idle store answers at once, a busy one in large batches. If a caller is cancelled, its item is
    still written, and ``abandoned`` gets the answer that nobody waits for.

    A refused batch is halved until the bad item is alone, so that only its caller gets the error. A batch that fails
    for another reason goes to `SetAside` and does not hold up later items.

    Args:
      kind: its name in `StoreFlushed`.
      write: see `Write`.
      answers: returns whether the database answers at all. Must not raise.
      patient: if true, keep the items while the database is away, and try again. Otherwise their callers get the error.
      abandoned: called with an item and its answer if its caller is gone.
      size: returns the approximate size of an item in bytes; ``None``: sizes do not matter. Must not raise.
      limit: the most items in one batch.
      max_bytes: the most bytes in one batch, unless a single item has more.
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
        """Write ``item`` with the next batch. The returned future gets the answer after the commit."""
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
        """Accept no more items, and write the waiting ones for at most ``timeout`` seconds.

        Items that are not written by then fail with `StoreUnavailableError`.
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
            # Write the halves in order, while later items wait: jobs must be stored in the order in which they were
            # sent. An item that needs only one statement may have been committed before the rest was refused.
            middle = len(batch) // 2
            await self._commit(batch[:middle], may_be_committed=True)
            await self._commit(batch[middle:], may_be_committed=True)
