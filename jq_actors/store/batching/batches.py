"""Batches of items to write: what one holds, how many items fit into one, and which caller gets which answer."""

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
"""The most items in one write: enough to make a commit cheap, few enough to hold its locks only briefly."""
MAX_BYTES = 4 << 20
"""The same in bytes. An item that is larger than this is written alone."""

Write = Callable[[Sequence[Item], bool], Awaitable[Sequence[Answer]]]
"""Writes items in one transaction and returns their answers, in order.

The flag says that an earlier try may have been committed, wholly or in part. The function raises
``StoreUnavailableError`` if a later try may succeed (the database is away, a statement took too long), and any other
exception if it refuses an item.
"""


@dataclass(slots=True, eq=False)
class Entry(Generic[Item, Answer]):
    """An item that waits for its answer."""

    item: Item
    size: int
    """The approximate size in bytes."""
    future: asyncio.Future[Answer]
    failed_after: int | None = None
    """How many batches of its kind had been written when the item last failed alone, for an unknown reason."""
    strikes: int = 0
    """How often it has failed alone again after others had been written since its previous failure."""


class Batches(Generic[Item, Answer]):
    """Writes batches of one kind.

    Parameters:
      kind: its name in `StoreFlushed`.
      write: see `Write`.
      abandoned: called with an item and its answer if its caller is gone.
      limit: the most items in one batch.
      max_bytes: the most bytes in one batch, unless a single item has more.
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
        """How many batches have been committed so far."""

    def first_of(self, entries: Sequence[Entry[Item, Answer]], at_most: int) -> list[Entry[Item, Answer]]:
        """Return the first entries that fit into one batch: at least one, and no more than ``at_most``."""
        batch = list(entries[:at_most])
        size = 0
        for count, entry in enumerate(batch):
            size += entry.size
            if count and size > self._max_bytes:
                return batch[:count]
        return batch

    async def write(self, batch: Sequence[Entry[Item, Answer]], *, may_be_committed: bool) -> Exception | None:
        """Write ``batch`` and hand the answers to the callers.

        Returns ``None`` on success, otherwise the error; no caller has an answer then. ``may_be_committed``: see
        `Write`.
        """
        started = self._clock.monotonic()
        try:
            answers = await self._write([entry.item for entry in batch], may_be_committed)
            answered = list(zip(batch, answers, strict=True))
        except Exception as error:  # noqa: BLE001 - any error goes to the callers
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
        """Fail ``entry`` with ``error``, because it can never be written."""
        self._events.emit(StoreRefused(self.kind, str(error)))
        fail([entry], error)

    def close(self, entries: Sequence[Entry[Item, Answer]]) -> None:
        """Fail ``entries``, because the store is closed."""
        fail(entries, StoreUnavailableError(f"The store was closed before this {self.kind} could be written."))


def fail(entries: Sequence[Entry[Item, Answer]], error: Exception) -> None:
    """Raise ``error`` in the callers of ``entries`` that are still waiting."""
    for entry in entries:
        if not entry.future.done():
            entry.future.set_exception(error)
