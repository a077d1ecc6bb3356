"""Items that failed for an unknown reason: the database may be away, or one item among many may be at fault."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic

from jq_actors.clock import Clock
from jq_actors.errors import StoreItemError, StoreUnavailableError, StoreUnknownError

from .batches import Answer, Batches, Entry, Item, fail

MIN_BACKOFF, MAX_BACKOFF = 0.05, 2.0
"""The shortest and longest pause between two tries, in seconds, while nothing can be written."""
STRIKES = 5
"""An item is at fault after it has failed alone this many times, with others written between the failures."""
VAIN = 2
"""After this many items in a row have failed alone, none can be written, and impatient callers get the error."""


class SetAside(Generic[Item, Answer]):
    """Writes failed items in its own task, so that newer items do not wait for them.

    While the database does not answer at all, nothing is tried. Then all items are tried together. Each failure halves
    the number tried next, down to a single item, and each success doubles it, so an item at fault is soon tried alone.
    An item that fails alone goes behind the others. It is at fault, and fails with an error, only if others of its kind
    are written again and again between its failures. Otherwise the cause is the database (a full disk, a missing
    privilege), and the items wait for it.

    Parameters:
      answers: returns whether the database answers at all. Must not raise.
      patient: if false, an item that fails alone gets its error at once, all items get it if the database does not
        answer, and an item that may already be written is not tried again.
    """

    def __init__(
        self, batches: Batches[Item, Answer], answers: Callable[[], Awaitable[bool]], *, clock: Clock, patient: bool
    ) -> None:
        self._batches, self._answers = batches, answers
        self._clock, self._patient = clock, patient
        self.entries: list[Entry[Item, Answer]] = []
        """The items that are set aside."""
        self.task: asyncio.Task[None] | None = None
        """Runs as long as items are set aside."""
        self.may_write = asyncio.Event()
        """Cleared while there is no point in writing anything else."""
        self.may_write.set()
        self._in_vain = 0

    def put(self, batch: Sequence[Entry[Item, Answer]], error: StoreUnavailableError) -> None:
        """Set ``batch`` aside, which failed with ``error``."""
        if not self._patient and isinstance(error, StoreUnknownError):
            fail(batch, error)
            return
        self.entries += batch
        self.may_write.clear()
        if self.task is None:
            self.task = asyncio.create_task(self._write_all(error), name=f"store-{self._batches.kind}-again")

    async def _write_all(self, error: Exception | None) -> None:
        size, tries, self._in_vain = self._batches.limit, 0, 0
        try:
            while self.entries:
                if isinstance(error, StoreUnavailableError) and not await self._answers_again(error, tries):
                    return
                self.may_write.set()
                part = self._batches.first_of(self.entries, size)
                error = await self._batches.write(part, may_be_committed=True)
                if error is None:
                    del self.entries[: len(part)]
                    size, tries, self._in_vain = min(2 * size, self._batches.limit), 0, 0
                else:
                    size, tries = max(1, len(part) // 2), tries + 1
                    self._failed(part, error)
        finally:
            self.task = None
            self.may_write.set()

    async def _answers_again(self, error: StoreUnavailableError, tries: int) -> bool:
        if not self._patient:
            answers = await self._answers()
            if not answers:
                self._fail_all(error)
            return answers
        while True:
            await self._clock.sleep(_backoff(tries, self._clock))
            if await self._answers():
                return True
            tries += 1

    def _failed(self, part: list[Entry[Item, Answer]], error: Exception) -> None:
        if not self._patient and isinstance(error, StoreUnknownError):
            del self.entries[: len(part)]
            fail(part, error)
        elif len(part) == 1:
            self._failed_alone(self.entries.pop(0), error)

    def _failed_alone(self, entry: Entry[Item, Answer], error: Exception) -> None:
        if not isinstance(error, StoreUnavailableError):
            self._batches.refuse(entry, error)
        elif self._patient:
            if entry.failed_after not in (None, self._batches.written):
                entry.strikes += 1
            entry.failed_after = self._batches.written
            if entry.strikes < STRIKES:
                self.entries.append(entry)
            else:
                kind = self._batches.kind
                self._batches.refuse(entry, StoreItemError(f"Others can be written, but this {kind} cannot: {error}"))
        else:
            fail([entry], error)
            self._in_vain += 1
            if self._in_vain >= VAIN:
                self._fail_all(error)

    def _fail_all(self, error: StoreUnavailableError) -> None:
        fail(self.entries, error)
        self.entries.clear()


def _backoff(tries: int, clock: Clock) -> float:
    # The jitter keeps the workers of a site from trying again all at once.
    return min(MAX_BACKOFF, MIN_BACKOFF * 2.0 ** min(tries, 10)) * (0.5 + clock.random() / 2)
