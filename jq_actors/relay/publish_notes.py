"""What became of publishings, written into the rows: marked as published, or their publish leases given back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextvars import Context
from types import UnionType
from typing import Any, TypeVar

from jq_actors.clock import Clock
from jq_actors.concurrency.doorbell import Doorbell
from jq_actors.errors import RuntimeStateError, StoreError
from jq_actors.events import Events, MarkLost
from jq_actors.model.job import JobId
from jq_actors.store.port import JobStore
from jq_actors.store.records import Dispatch
from jq_actors.transport.port import Deferred, NotPublished, Published, PublishResult

MOST = 500
"""Dispatches of one mark: its rows are locked meanwhile."""
PAUSE = 0.2
"""Seconds between two marks. Nobody waits for them, and a job that was claimed meanwhile needs none any more."""

T = TypeVar("T")
Key = tuple[JobId, int]
"""A dispatch: of a job, with its number."""


class PublishNotes:
    """Notes what became of publishings. Unknown results are not written: their leases have to run out.

    A note that is lost (`MarkLost`) costs nothing but a second copy, which a claim refuses.

    Parameters:
      lane_owner: see `JobStore.mark_published`.
    """

    def __init__(self, store: JobStore, clock: Clock, events: Events, *, lane_owner: bool) -> None:
        self._store, self._events, self._lane_owner = store, events, lane_owner
        self._published: list[Key] = []
        self._marking: asyncio.Task[None] | None = None
        self._bell = Doorbell(clock)
        self._is_ending = False
        self._writes: set[asyncio.Task[None]] = set()
        self.on_released: Callable[[], None] = lambda: None
        """Called when rows are left to a relay, after `write_behind` or `release`; a worker wakes its own."""

    async def write(self, dispatches: Sequence[Dispatch], results: Sequence[PublishResult]) -> None:
        """Note ``results``; returns when it is written, or lost."""
        await self._mark(_keys(dispatches, results, Published))
        await self._release(_keys(dispatches, results, Deferred))
        await self._refuse(_keys(dispatches, results, NotPublished))

    def write_behind(self, dispatches: Sequence[Dispatch], results: Sequence[PublishResult]) -> None:
        """Note ``results`` behind the caller."""
        self._published += _keys(dispatches, results, Published)
        if self._published and self._marking is None:
            self._marking = keep(self._writes, self._mark_all())
        self._release_behind(_keys(dispatches, results, Deferred))
        if refused := _keys(dispatches, results, NotPublished):
            keep(self._writes, self._refuse(refused))

    def release(self, dispatches: Iterable[Dispatch]) -> None:
        """Note behind the caller that ``dispatches`` are not published from here."""
        self._release_behind([_key(dispatch) for dispatch in dispatches])

    async def end(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds until all is written; from now on marks make no pause."""
        self._is_ending = True
        self._bell.ring()
        if self._writes:
            await asyncio.wait(self._writes, timeout=timeout)

    async def _mark_all(self) -> None:
        try:
            while self._published:
                some, self._published = self._published[:MOST], self._published[MOST:]
                await self._mark(some)
                # A job in a queue of this process is lost with the process: its row has to say so soon.
                if not (self._published or self._lane_owner or self._is_ending):
                    await self._bell.wait(PAUSE)
        finally:
            self._marking = None

    def _release_behind(self, keys: Sequence[Key]) -> None:
        if keys:
            keep(self._writes, self._release_and_tell(keys))

    async def _release_and_tell(self, keys: Sequence[Key]) -> None:
        await self._release(keys)
        self.on_released()

    async def _mark(self, keys: Sequence[Key]) -> None:
        if keys:
            await self._guarded(self._store.mark_published(keys, lane_owner=self._lane_owner))

    async def _release(self, keys: Sequence[Key]) -> None:
        if keys:
            await self._guarded(self._store.release_publish_lease(keys))

    async def _refuse(self, keys: Sequence[Key]) -> None:
        if keys:
            await self._guarded(self._store.note_refused(keys))

    async def _guarded(self, write: Coroutine[Any, Any, None]) -> None:
        try:
            await write
        except (StoreError, RuntimeStateError) as error:  # the latter: the worker has left whose memory it was
            self._events.emit(MarkLost(str(error)))


def spawn(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Do ``work`` behind the caller, whose context variables it does not carry."""
    return Context().run(asyncio.get_running_loop().create_task, work)


def keep(tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """`spawn` ``work``; it is among ``tasks`` until it has ended."""
    task = spawn(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task


def _key(dispatch: Dispatch) -> Key:
    return dispatch.job_id, dispatch.dispatch


def _keys(
    dispatches: Sequence[Dispatch], results: Sequence[PublishResult], kind: type[PublishResult] | UnionType
) -> list[Key]:
    """Those with a result of that kind."""
    return [_key(d) for d, result in zip(dispatches, results, strict=True) if isinstance(result, kind)]
