"""A batch of things to write: what it holds, how much of what waits fits into one, and who gets which answer."""

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
MAX_BYTES = 4 << 20
"""The same in bytes. What is larger alone is written alone."""

Write = Callable[[Sequence[Item], bool], Awaitable[Sequence[Answer]]]
"""Writes items in one transaction and returns their answers, in order.

The flag says that an earlier try may have been committed, wholly or in part. Raises ``StoreUnavailableError`` when it
may work another time (the database is away, a statement took too long), anything else when it refuses an item.
"""


@dataclass(slots=True, eq=False)
class Entry(Generic[Item, Answer]):
    """An item that waits for its answer."""

    item: Item
    size: int
    """Bytes, more or less."""
    future: asyncio.Future[Answer]
    failed_after: int | None = None
    """After how many batches of its kind it last failed alone, for a reason that is not known."""
    strikes: int = 0
    """How often it did so, others being written since the time before."""


class Batches(Generic[Item, Answer]):
    """Writes batches of one kind.

    Parameters:
      kind: its name in `StoreFlushed`.
      abandoned: called with an item and its answer when its caller is gone.
      limit: most items of one.
      max_bytes: most bytes of one, unless a single item has more.
    """

    def __init__(
        self,
        kind: str,
        write: Write[Item, Answer],
        *,
        clock: Clock,
        events: Events,
        abandoned: Callable[[Item, Answer], None] | None,
        limit: int,
        max_bytes: int,
    ) -> None:
        self.kind, self.limit = kind, limit
        self._write, self._max_bytes = write, max_bytes
        self._clock, self._events, self._abandoned = clock, events, abandoned
        self.written = 0
        """How many batches were committed so far."""

    def first_of(self, entries: Sequence[Entry[Item, Answer]], at_most: int) -> list[Entry[Item, Answer]]:
        """Those at the front that fit into one batch; at least one."""
        batch = list(entries[:at_most])
        size = 0
        for count, entry in enumerate(batch):
            size += entry.size
            if count and size > self._max_bytes:
                return batch[:count]
        return batch

    async def write(self, batch: Sequence[Entry[Item, Answer]], *, may_be_committed: bool) -> Exception | None:
        """Write ``batch`` and give out the answers; ``None``: done, else nothing was given out.

        ``may_be_committed``: see `Write`.
        """
        started = self._clock.monotonic()
        try:
            answers = await self._write([entry.item for entry in batch], may_be_committed)
            answered = list(zip(batch, answers, strict=True))
        except Exception as error:  # noqa: BLE001 - whatever it is, it goes to the callers
            return error
        self.written += 1
        self._events.emit(StoreFlushed(self.kind, len(batch), self._clock.monotonic() - started))
        for entry, answer in answered:
            if not entry.future.done():
                entry.future.set_result(answer)
            elif self._abandoned is not None:
                self._abandoned(entry.item, answer)
        return None

    def refuse(self, entry: Entry[Item, Answer], error: Exception) -> None:
        """It can never be written."""
        self._events.emit(StoreRefused(self.kind, str(error)))
        fail([entry], error)

    def close(self, entries: Sequence[Entry[Item, Answer]]) -> None:
        """They are not written any more."""
        fail(entries, StoreUnavailableError(f"The store was closed before this {self.kind} could be written."))


def fail(entries: Sequence[Entry[Item, Answer]], error: Exception) -> None:
    """Answer those of ``entries`` that wait with ``error``."""
    for entry in entries:
        if not entry.future.done():
            entry.future.set_exception(error)
