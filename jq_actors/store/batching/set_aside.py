"""What could not be written, and why is not known: the database may be away, or one item among many be at fault."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic

from jq_actors.clock import Clock
from jq_actors.errors import StoreItemError, StoreUnavailableError, StoreUnknownError

from .batches import Answer, Batches, Entry, Item, fail

MIN_BACKOFF, MAX_BACKOFF = 0.05, 2.0
"""Seconds between two tries while nothing can be written."""
STRIKES = 5
"""How often an item has to fail alone, others being written between one time and the next, to be at fault."""
VAIN = 2
"""After so many items that failed alone, one after the other, none can be written: who does not wait is told so."""


class SetAside(Generic[Item, Answer]):
    """Writes what failed, in a task of its own: what comes meanwhile does not wait for it.

    While the database does not answer at all, nothing is tried. Then all is tried together; after a failure half as
    much of it, down to a single item, and after a success twice as much: so an item at fault is soon alone. One that
    fails alone goes behind the others. Only if others of its kind are written again and again between its failures is
    it at fault, and gets an error: else it is the database (a full disk, a missing right), which is waited for.

    Parameters:
      answers: whether the database answers at all; does not raise.
      patient: else an item that fails alone gets its error at once, and all of them get it when the database does not
        answer; what may be written already is not tried again.
    """

    def __init__(
        self, batches: Batches[Item, Answer], answers: Callable[[], Awaitable[bool]], *, clock: Clock, patient: bool
    ) -> None:
        self._batches, self._answers = batches, answers
        self._clock, self._patient = clock, patient
        self.entries: list[Entry[Item, Answer]] = []
        """What is set aside."""
        self.task: asyncio.Task[None] | None = None
        """There, as long as something is."""
        self.may_write = asyncio.Event()
        """Cleared while it makes no sense to write anything else."""
        self.may_write.set()
        self._in_vain = 0

    def put(self, batch: Sequence[Entry[Item, Answer]], error: StoreUnavailableError) -> None:
        """``batch`` failed with ``error``."""
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
                self._batches.refuse(entry, StoreItemError(f"Others are written, and this {kind} is not: {error}"))
        else:
            fail([entry], error)
            self._in_vain += 1
            if self._in_vain >= VAIN:
                self._fail_all(error)

    def _fail_all(self, error: StoreUnavailableError) -> None:
        fail(self.entries, error)
        self.entries.clear()


def _backoff(tries: int, clock: Clock) -> float:
    # The jitter keeps the workers of a site from coming back all at once.
    return min(MAX_BACKOFF, MIN_BACKOFF * 2.0 ** min(tries, 10)) * (0.5 + clock.random() / 2)
