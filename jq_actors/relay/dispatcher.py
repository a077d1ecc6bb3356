"""How stored jobs reach the broker: publish, then mark their rows, or give their publish leases back.

Senders and settlements leave their dispatches here and go on (`Dispatcher.dispatch`); the relay waits for the end
(`publish`), and so does a sender with ``on_broker_down: raise`` (`confirm`). The process that leaves
a dispatch here holds its row's publish lease: if it is not published from here, for whatever reason, a relay publishes
it once that lease is given back or has run out.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Sequence

from jq_actors.clock import Clock
from jq_actors.config.loading import BrokerConfig
from jq_actors.events import Events, Redispatched, SendDeferred, TaskFailed
from jq_actors.model.outcome import failure_of
from jq_actors.store.port import JobStore
from jq_actors.store.records import Dispatch
from jq_actors.transport.port import (
    Deferred,
    NotPublished,
    Outgoing,
    Published,
    PublishResult,
    PublishUnknown,
    Transport,
)

from .publish_notes import PublishNotes, keep, spawn

FIRST_CONNECT = 2.0
"""Seconds that the first dispatches of a process wait for the broker. After that a relay may be quicker."""
BATCH = 500
"""Most dispatches of one publishing: no result is available until all are answered."""
PACE = 0.005
"""Seconds between two publishings for those who go on. Many small ones cost many times what a large one does."""


class Dispatcher:
    """Publishes the dispatches of this process; on the I/O loop.

    Parameters:
      config: how many of those that were left here may be on their way to the broker without its confirm
        (``publish_window``), and how long a sender waits at most for that to have room (``confirm_timeout``).
    """

    def __init__(
        self,
        transport: Transport,
        store: JobStore,
        clock: Clock,
        events: Events,
        *,
        config: BrokerConfig,
    ) -> None:
        self.store = store
        self._transport, self._clock, self._events = transport, clock, events
        self._window, self._deadline = config.publish_window, config.confirm_timeout.total_seconds()
        self.notes = PublishNotes(store, clock, events, lane_owner=not transport.shared)
        self._waiting: deque[Dispatch] = deque()
        self._in_flight = 0
        self._publishings: set[asyncio.Task[None]] = set()
        self._pumping: asyncio.Task[None] | None = None
        self._is_closed, self._is_new = False, True
        self._connecting: asyncio.Task[bool] | None = None
        self._has_room = asyncio.Event()
        self._has_room.set()

    # -- for those who go on

    def dispatch(self, dispatches: Sequence[Dispatch]) -> None:
        """Publish ``dispatches`` behind the caller, in their order. Never blocks, never raises."""
        if self._is_closed:
            self.notes.release(dispatches)
        elif dispatches:
            self._waiting.extend(dispatches)
            self._look_at_room()
            if not self._transport.shared:
                self._pump()  # into the memory of this process
            elif self._pumping is None:
                self._pumping = spawn(self._pump_at_pace())

    async def room(self) -> bool:
        """Whether to store jobs for a publishing from here. While the window is full, waits for it to have room.

        ``False``: the broker takes nothing now, or the window stayed full for too long: they are better left to relays.
        """
        if self._still_connects():
            return self._has_room.is_set()  # nobody waits for a broker that may not be there at all
        try:
            async with asyncio.timeout(self._deadline):
                while self.obstacle is None and not self._has_room.is_set():
                    await self._has_room.wait()
        except TimeoutError:
            return False
        return self.obstacle is None

    @property
    def obstacle(self) -> str | None:
        """Why nothing can be published from here now; ``None``: it can."""
        health = self._transport.health
        if self._is_closed:
            return "the process ends"
        if not health.connected:
            return "no connection to the broker"
        return "the broker blocks publishers (memory or disk alarm)" if health.publisher_blocked else None

    # -- for those who wait

    async def connected(self) -> bool:
        """Whether the broker takes something; at the start of a process, waits a moment for it to be there."""
        if self._still_connects():
            if self._connecting is None:
                self._connecting = spawn(self._transport.wait_connected(min(FIRST_CONNECT, self._deadline)))
            await asyncio.wait([self._connecting])
            self._is_new = False
        return self.obstacle is None

    async def confirm(self, dispatches: Sequence[Dispatch]) -> list[PublishResult]:
        """Publish ``dispatches``; returns when the broker has answered, which is noted behind the caller."""
        results = await self._transport.publish([self._outgoing(dispatch) for dispatch in dispatches])
        self.notes.write_behind(dispatches, results)
        return results

    async def publish(self, dispatches: Sequence[Dispatch], reason: str) -> list[PublishResult]:
        """Publish rows that a relay took; returns when their results are written.

        They go ahead of new sendings, and do not count in the window: a relay takes no more than it can bear.
        ``reason``: see `Redispatched`.
        """
        fit = self._fitting(dispatches)
        outgoing = [self._outgoing(d, relayed=True) for d, fits in zip(dispatches, fit, strict=True) if fits]
        published = iter(await self._transport.publish(outgoing))
        results = [next(published) if fits else Deferred() for fits in fit]
        await self.notes.write(dispatches, results)
        if count := sum(isinstance(result, Published) for result in results):
            self._events.emit(Redispatched(reason, count))
        return results

    # -- the end

    async def close(self, timeout: float) -> None:
        """Publish what can be within ``timeout`` seconds; the rest, and what still comes, is left to relays.

        What is on its way by then has its answer when the transport is closed; `written` waits for that.
        """
        ends_at = asyncio.get_running_loop().time() + timeout
        while self._waiting or self._publishings:
            self._pump()
            left = ends_at - asyncio.get_running_loop().time()
            if left <= 0:
                break
            await asyncio.wait(self._publishings, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        self._is_closed = True
        for task in (self._connecting, self._pumping):
            if task is not None:
                task.cancel()
        self._has_room.set()
        if self._waiting:
            self._events.emit(SendDeferred(len(self._waiting), "the process ends"))
            self.notes.release(self._waiting)
            self._waiting.clear()
        await self.notes.end(timeout)

    async def written(self, timeout: float) -> None:
        """After `close`, and that of the transport: all that became of the dispatches is written, or too late."""
        if self._publishings:
            _, late = await asyncio.wait(self._publishings, timeout=timeout)
            for publishing in late:
                publishing.cancel()
        await self.notes.end(timeout)

    # -- behind the callers

    def _still_connects(self) -> bool:
        if self._is_new and (self._is_closed or self._transport.health.connected):
            self._is_new = False
        return self._is_new

    def _look_at_room(self) -> None:
        if self._is_closed or len(self._waiting) + self._in_flight < self._window:
            self._has_room.set()
        else:
            self._has_room.clear()

    async def _pump_at_pace(self) -> None:
        try:
            while self._waiting:
                self._pump()
                await self._clock.sleep(PACE)
        finally:
            self._pumping = None

    def _pump(self) -> None:
        while self._waiting and (free := self._window - self._in_flight) > 0:
            batch = [self._waiting.popleft() for _ in range(min(BATCH, free, len(self._waiting)))]
            self._in_flight += len(batch)
            keep(self._publishings, self._publish_behind(batch))

    async def _publish_behind(self, batch: Sequence[Dispatch]) -> None:
        try:
            if await self.connected():
                await self._publish_now(batch)
            else:
                self.notes.release(batch)
                self._events.emit(SendDeferred(len(batch), self.obstacle or "no connection to the broker"))
        except Exception as error:  # noqa: BLE001 - whatever it is, the leases run out, and relays publish these
            failure = failure_of(error)
            self._events.emit(TaskFailed("dispatcher", failure.error, failure.traceback))
        finally:
            was_full = self._in_flight == self._window
            self._in_flight -= len(batch)
            self._look_at_room()
            if was_full:
                self._pump()

    async def _publish_now(self, batch: Sequence[Dispatch]) -> None:
        results = await self._transport.publish([self._outgoing(dispatch) for dispatch in batch])
        self.notes.write_behind(batch, results)
        unsent = [result.reason for result in results if isinstance(result, NotPublished | PublishUnknown)]
        if unsent:
            self._events.emit(SendDeferred(len(unsent), unsent[0]))

    def _outgoing(self, dispatch: Dispatch, *, relayed: bool = False) -> Outgoing:
        return Outgoing(
            dispatch.job_id,
            dispatch.dispatch,
            dispatch.queue,
            dispatch.body,
            dispatch.priority,
            relayed=relayed,
        )

    def _fitting(self, dispatches: Sequence[Dispatch]) -> list[bool]:
        """Which dispatches have room in their queue: due rows are taken without regard to it."""
        if self._transport.shared:
            return [True] * len(dispatches)
        taken: Counter[str] = Counter()
        fitting: list[bool] = []
        for dispatch in dispatches:
            taken[dispatch.queue] += 1
            fitting.append(taken[dispatch.queue] <= self._transport.capacity(dispatch.queue))
        return fitting
