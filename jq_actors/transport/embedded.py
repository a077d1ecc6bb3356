"""The transport without a broker: lanes in this process.

Without persistence the lanes hold the only copy of a job, so they take everything. With persistence they are
a small window on the jobs table: a lane holds about twice what its consumer works on, the rest waits in rows,
and the relay brings it in order. On one machine many processes can work so, with lanes of their own and one
table.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta

from jq_actors.clock import Clock
from jq_actors.errors import TransportError
from jq_actors.events import BrokerConnected, ConsumerConfirmed, Events, MemoryJobsLost
from jq_actors.settings import BrokerConfig

from .memory import DeadLetter, Delays, Lane
from .port import (
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

DESCRIPTION = "embedded (lanes in this process)"
DEAD_LETTERS = 1000
"""How many are kept, the newest."""


class EmbeddedTransport:
    """The `Transport` of ``embedded://``.

    ``start`` after ``close`` opens it again, with what waited in it.

    Parameters:
      has_store: whether every job has a row, so that what does not fit can wait there (`Deferred`), and what
        is left in the lanes at ``close`` is found again by any relay.
    """

    def __init__(self, config: BrokerConfig, clock: Clock, events: Events, *, has_store: bool) -> None:
        self._events, self._has_store = events, has_store
        self._lanes: dict[str, Lane] = {}
        self._delays = Delays(clock, self._put)
        self._is_open = False
        self._generation = 0
        self.dead: deque[DeadLetter] = deque(maxlen=DEAD_LETTERS)
        """What was buried, oldest first; whoever buries also tells by an event."""
        self.on_room: Callable[[], None] = lambda: None
        """Called when a full lane has room again: the relay's `wake`, with persistence."""

    async def start(self) -> None:
        """Open; there is nothing to connect to."""
        self._is_open = True
        self._generation += 1
        self._delays.start()
        self._events.emit(BrokerConnected("embedded", DESCRIPTION))

    async def wait_connected(self, timeout: float) -> bool:
        """Whether it is open."""
        return self._is_open

    async def publish(self, batch: Sequence[Outgoing]) -> list[PublishResult]:
        """Put ``batch`` into its lanes; see `Transport.publish`."""
        return [self._publish(outgoing) for outgoing in batch]

    def want(self, queue: str, prefetch: int, deliver: Deliver) -> None:
        """See `Transport.want`."""
        self._lane(queue).consume(prefetch, deliver)
        self._events.emit(ConsumerConfirmed(queue))

    async def stop_intake(self) -> None:
        """See `Transport.stop_intake`."""
        for lane in self._lanes.values():
            lane.stop()

    async def close(self) -> None:
        """Put what is unacked back into its lane and close; without persistence, tell of jobs left."""
        await self.stop_intake()
        await self._delays.stop()
        self._is_open = False
        for lane in self._lanes.values():
            lane.put_all_back()
        left = sum(lane.waiting for lane in self._lanes.values()) + len(self._delays)
        if left and not self._has_store:
            self._events.emit(MemoryJobsLost(left))

    def capacity(self, queue: str) -> int:
        """With persistence, the room in the lane of ``queue``: none if nobody here consumes it."""
        if not self._has_store:
            return sys.maxsize
        lane = self._lanes.get(queue)
        return 0 if lane is None else lane.room

    async def depth(self, queue: str) -> QueueDepth | None:
        """See `Transport.depth`; of this process's lane."""
        self._check_open()
        lane = self._lanes.get(queue)
        return None if lane is None else QueueDepth(lane.waiting, int(lane.is_consumed))

    async def purge(self, queue: str) -> int:
        """See `Transport.purge`; of this process's lane."""
        self._check_open()
        lane = self._lanes.get(queue)
        return 0 if lane is None else lane.purge()

    async def check(self, queues: Sequence[str]) -> TransportReport:
        """Nothing can be wrong; without persistence there is something to know."""
        warning = "without `persistence`, jobs are only in memory and end with the process"
        return TransportReport(DESCRIPTION, warnings=() if self._has_store else (warning,))

    @property
    def shared(self) -> bool:
        """Not shared: each process has lanes of its own."""
        return False

    @property
    def health(self) -> TransportHealth:
        """Connected while it is open."""
        return TransportHealth(connected=self._is_open)

    @property
    def generation(self) -> int:
        """How often it was opened."""
        return self._generation

    @property
    def delivery_timeout(self) -> timedelta | None:
        """None: a delivery may stay unacked for ever."""
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
        lane = self._lanes.get(outgoing.queue)
        return lane is not None and lane.admits(outgoing)

    def _put(self, outgoing: Outgoing) -> None:
        self._lane(outgoing.queue).put(outgoing)

    def _lane(self, queue: str) -> Lane:
        if queue not in self._lanes:
            self._lanes[queue] = Lane(queue, self._events, self.dead.append, lambda: self.on_room())
        return self._lanes[queue]

    def _check_open(self) -> None:
        if not self._is_open:
            raise TransportError("The embedded broker is not open.")
