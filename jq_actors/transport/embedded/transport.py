"""The transport without a broker: queues in this process.

Without persistence the queues hold the only copies of the jobs, so they take everything, and groups have lanes. With
persistence they are a small window on the jobs table: a queue holds about twice what its consumer works on; the other
jobs wait in their rows, and the relay publishes them in order. That way many processes of one machine can share a
table, each with queues of its own.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta

from jq_actors.clock import Clock
from jq_actors.config.settings import BrokerConfig
from jq_actors.errors import TransportError
from jq_actors.events import BrokerConnected, ConsumerConfirmed, Events, MemoryJobsLost
from jq_actors.model.lane import Fairness
from jq_actors.transport.port import (
    Deferred,
    Deliver,
    NotPublished,
    Outgoing,
    Published,
    PublishResult,
    QueueDepth,
    TransportHealth,
    TransportReport,
)

from .delays import Delays
from .lanes import MemoryLanes
from .queues import DeadLetter, Holder, MemoryQueue

DESCRIPTION = "embedded (queues in this process)"
DEAD_LETTERS = 1000
"""How many dead letters are kept; the oldest go first."""


class EmbeddedTransport:
    """The `Transport` of ``embedded://``.

    ``start`` after ``close`` opens it again, with the messages that waited in it.

    Parameters:
      config: not used, since this transport has no settings; every adapter takes it.
      clock: for delays and the turns of lanes.
      events: where the transport reports.
      has_store: whether every job has a row. Then a job that does not fit in can wait there (`Deferred`), and any relay
        finds the jobs that are left in the queues at ``close``.
    """

    def __init__(self, config: BrokerConfig, clock: Clock, events: Events, *, has_store: bool) -> None:
        self._clock, self._events, self._has_store = clock, events, has_store
        self._queues: dict[str, MemoryQueue] = {}
        self._lanes: dict[str, MemoryLanes] = {}
        self._delays = Delays(clock, self._put)
        self._is_open = False
        self._generation = 0
        self.dead: deque[DeadLetter] = deque(maxlen=DEAD_LETTERS)
        """The dead letters, oldest first. The caller of `Delivery.bury` emits the event."""
        self.on_room: Callable[[], None] = lambda: None
        """Called when a full queue has room again; with persistence, it wakes the relay."""

    async def start(self) -> None:
        """Open the queues; there is nothing to connect to."""
        self._is_open = True
        self._generation += 1
        self._delays.start()
        self._events.emit(BrokerConnected("embedded", DESCRIPTION))

    async def wait_connected(self, timeout: float) -> bool:
        """Return at once whether the transport is open."""
        return self._is_open

    async def publish(self, batch: Sequence[Outgoing]) -> list[PublishResult]:
        """Put each message of ``batch`` into its queue or lane; a delayed one when it is due."""
        return [self._publish(outgoing) for outgoing in batch]

    def want(self, queue: str, prefetch: int, deliver: Deliver) -> None:
        """Consume ``queue`` from now on, with at most ``prefetch`` unacked messages."""
        self._queue(queue).consume(prefetch, deliver)
        self._events.emit(ConsumerConfirmed(queue))

    def serve_lanes(self, queue: str, slots: int, fairness: Fairness, deliver: Deliver) -> None:
        """Serve the lanes of ``queue`` from now on, at most ``slots`` at once; a partition may have several of them."""
        self._lanes_of(queue).serve(slots, fairness, deliver)

    async def stop_intake(self) -> None:
        """Stop all consuming. Deliveries stay valid."""
        for holder in self._holders():
            holder.stop()

    async def close(self) -> None:
        """Put unacked messages back and close the queues. Without persistence, report the jobs that are lost."""
        await self.stop_intake()
        await self._delays.stop()
        self._is_open = False
        for holder in self._holders():
            await holder.close()
        left = sum(holder.waiting for holder in self._holders()) + len(self._delays)
        if left and not self._has_store:
            self._events.emit(MemoryJobsLost(left))

    def capacity(self, queue: str) -> int:
        """How many more messages of ``queue`` fit in now. Without persistence there is always room."""
        if not self._has_store:
            return sys.maxsize
        return self._queues[queue].room.free if queue in self._queues else 0

    async def depth(self, queue: str) -> QueueDepth | None:
        """The counts of this process's queue, together with its lanes; ``None`` if there is none.

        Raises:
          TransportError: the transport is not open.
        """
        self._check_open()
        holders = self._holders_of(queue)
        if not holders:
            return None
        consumers = int(queue in self._queues and self._queues[queue].is_consumed)
        return QueueDepth(sum(holder.waiting for holder in holders), consumers)

    async def purge(self, queue: str) -> int:
        """Delete the waiting messages of this process's queue and its lanes; returns how many.

        Raises:
          TransportError: the transport is not open.
        """
        self._check_open()
        return sum(holder.purge() for holder in self._holders_of(queue))

    async def check(self, queues: Sequence[str]) -> TransportReport:
        """Report no problems, since there can be none, but a warning if there is no persistence."""
        warning = "without `persistence`, jobs are only in memory, and are lost when the process ends"
        return TransportReport(DESCRIPTION, warnings=() if self._has_store else (warning,))

    @property
    def shared(self) -> bool:
        """Always false: each process has its own queues."""
        return False

    @property
    def health(self) -> TransportHealth:
        """Connected while the transport is open."""
        return TransportHealth(connected=self._is_open)

    @property
    def generation(self) -> int:
        """How often the transport was opened."""
        return self._generation

    @property
    def counts_returns(self) -> bool:
        """Always false: messages may come back any number of times."""
        return False

    @property
    def delivery_timeout(self) -> timedelta | None:
        """Always ``None``: a delivery may stay unacked for ever."""
        return None

    def _publish(self, outgoing: Outgoing) -> PublishResult:
        if not self._is_open:
            return NotPublished("the embedded broker is not open")
        if outgoing.delay:
            self._delays.add(outgoing.delay, outgoing)
            return Published()
        if self._has_store and not self._admits(outgoing):
            return Deferred()
        self._put(outgoing)
        return Published()

    def _admits(self, outgoing: Outgoing) -> bool:
        queue = self._queues.get(outgoing.queue)
        return queue is not None and queue.room.admits(outgoing)

    def _put(self, outgoing: Outgoing) -> None:
        holder = self._queue(outgoing.queue) if outgoing.lane is None else self._lanes_of(outgoing.queue)
        holder.put(outgoing)

    def _queue(self, queue: str) -> MemoryQueue:
        if queue not in self._queues:
            self._queues[queue] = MemoryQueue(queue, self._events, self.dead.append, lambda: self.on_room())
        return self._queues[queue]

    def _lanes_of(self, queue: str) -> MemoryLanes:
        if queue not in self._lanes:
            self._lanes[queue] = MemoryLanes(queue, self._clock, self._events, self.dead.append)
        return self._lanes[queue]

    def _holders(self) -> list[Holder]:
        return [*self._queues.values(), *self._lanes.values()]

    def _holders_of(self, queue: str) -> list[Holder]:
        return [holder for holder in (self._queues.get(queue), self._lanes.get(queue)) if holder is not None]

    def _check_open(self) -> None:
        if not self._is_open:
            raise TransportError("The embedded broker is not open.")
