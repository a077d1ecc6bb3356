"""Natural group commit: what waits while one write is under way goes into the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from jq_actors.clock import Clock
from jq_actors.errors import StoreUnavailableError
from jq_actors.events import Events, StoreFlushed, StoreRefused

Item = TypeVar("Item")
Answer = TypeVar("Answer")

MAX_BATCH = 500
"""Items of one write: enough to make a commit cheap, few enough to keep its locks short."""

MIN_BACKOFF, MAX_BACKOFF = 0.05, 2.0
"""Seconds between two tries while the database is away."""

Write = Callable[[Sequence[Item], bool], Awaitable[Sequence[Answer]]]
"""Writes items in one transaction and returns their answers, in order.

The flag says that an earlier try may have been committed although its answer was lost. Raises
``StoreUnavailableError`` when the database is away, anything else when it refuses an item.
"""


@dataclass(frozen=True, slots=True)
class _Entry(Generic[Item, Answer]):
    item: Item
    future: asyncio.Future[Answer]


class GroupCommit(Generic[Item, Answer]):
    """Collects items and writes them together, in a task of its own.

    A write starts at once when none is under way, and takes all that wait, up to ``limit``. No timer: an idle
    store answers at once, a busy one in large batches. A caller that is cancelled changes nothing: its item is
    written, and ``abandoned`` is told the answer that nobody waits for. A refused batch is halved until the bad
    item is alone; only its caller gets the error.

    Args:
      kind: its name in `StoreFlushed`.
      write: see `Write`.
      patient: while the database is away, keep the items and try again; else their callers get the error.
      abandoned: called with an item and its answer when its caller is gone.
    """

    def __init__(
        self,
        kind: str,
        write: Write[Item, Answer],
        *,
        clock: Clock,
        events: Events,
        patient: bool = True,
        abandoned: Callable[[Item, Answer], None] | None = None,
        limit: int = MAX_BATCH,
    ) -> None:
        self._kind, self._write, self._limit = kind, write, limit
        self._clock, self._events = clock, events
        self._patient, self._abandoned = patient, abandoned
        self._waiting: list[_Entry[Item, Answer]] = []
        self._taken: list[_Entry[Item, Answer]] = []
        self._flusher: asyncio.Task[None] | None = None
        self._closed = False

    def add(self, item: Item) -> asyncio.Future[Answer]:
        """Write ``item`` with the next batch; the future has its answer once that is committed."""
        entry: _Entry[Item, Answer] = _Entry(item, asyncio.get_running_loop().create_future())
        if self._closed:
            entry.future.set_exception(_closed(self._kind))
            return entry.future
        self._waiting.append(entry)
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._flush(), name=f"store-{self._kind}")
        return entry.future

    async def close(self, timeout: float) -> None:
        """Take nothing more; write what waits, for at most ``timeout`` seconds.

        What is not written by then ends with `StoreUnavailableError`.
        """
        self._closed = True
        flusher = self._flusher
        if flusher is not None:
            _, late = await asyncio.wait([flusher], timeout=timeout)
            if late:
                flusher.cancel()
                await asyncio.wait([flusher])
        for entry in (*self._taken, *self._waiting):
            if not entry.future.done():
                entry.future.set_exception(_closed(self._kind))

    async def _flush(self) -> None:
        try:
            while self._waiting:
                self._taken, self._waiting = self._waiting[: self._limit], self._waiting[self._limit :]
                await self._commit(self._taken, again=False)
        finally:
            self._flusher = None

    async def _commit(self, batch: list[_Entry[Item, Answer]], *, again: bool) -> None:
        tries = 0
        while True:
            started = self._clock.monotonic()
            try:
                answers = await self._write([entry.item for entry in batch], again)
                answered = list(zip(batch, answers, strict=True))
            except StoreUnavailableError as error:
                if not self._patient:
                    self._fail(batch, error)
                    return
                await self._clock.sleep(_backoff(tries, self._clock))
                tries, again = tries + 1, True
            except Exception as error:  # noqa: BLE001 - whatever it is, it goes to the callers
                await self._halve(batch, error, again=again)
                return
            else:
                self._events.emit(StoreFlushed(self._kind, len(batch), self._clock.monotonic() - started))
                for entry, answer in answered:
                    self._answer(entry, answer)
                return

    async def _halve(self, batch: list[_Entry[Item, Answer]], error: Exception, *, again: bool) -> None:
        if len(batch) == 1:
            self._events.emit(StoreRefused(self._kind, str(error)))
            self._fail(batch, error)
            return
        middle = len(batch) // 2
        await self._commit(batch[:middle], again=again)
        await self._commit(batch[middle:], again=again)

    def _fail(self, batch: list[_Entry[Item, Answer]], error: Exception) -> None:
        for entry in batch:
            if not entry.future.done():
                entry.future.set_exception(error)

    def _answer(self, entry: _Entry[Item, Answer], answer: Answer) -> None:
        if not entry.future.done():
            entry.future.set_result(answer)
        elif self._abandoned is not None:
            self._abandoned(entry.item, answer)


def _backoff(tries: int, clock: Clock) -> float:
    # The jitter keeps the workers of a site from coming back all at once.
    return min(MAX_BACKOFF, MIN_BACKOFF * 2.0 ** min(tries, 10)) * (0.5 + clock.random() / 2)


def _closed(kind: str) -> StoreUnavailableError:
    return StoreUnavailableError(f"The store was closed before this {kind} could be written.")
