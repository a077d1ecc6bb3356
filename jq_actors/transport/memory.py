"""Queues in this process: the lanes of the embedded transport, and what it holds back for later."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from jq_actors.clock import Clock
from jq_actors.doorbell import Doorbell
from jq_actors.events import AckLost, Events

from .port import Deliver, Outgoing


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A delivery that was buried."""

    queue: str
    body: bytes
    reason: str


@dataclass(slots=True, eq=False)
class Message:
    """One message in a lane. Higher priority sorts first, then who came first."""

    outgoing: Outgoing
    place: int
    """Its place in the order of arrival; a requeue does not change it."""
    redelivered: bool = False

    def __lt__(self, other: Message) -> bool:
        return (-self.outgoing.priority, self.place) < (-other.outgoing.priority, other.place)


class Lane:
    """One queue: what waits in it, and what its consumer has in hand.

    Parameters:
      bury: takes a dead letter.
      on_room: called when a full lane has drained to a good part of its `room`.
    """

    def __init__(
        self, queue: str, events: Events, bury: Callable[[DeadLetter], None], on_room: Callable[[], None]
    ) -> None:
        self.queue = queue
        self._events, self._bury, self._on_room = events, bury, on_room
        self._waiting: list[Message] = []
        self._held: set[MemoryDelivery] = set()
        self._deliver: Deliver | None = None
        self._prefetch = 0
        self._arrivals = 0
        self._turn_is_due = False
        self._behind = False

    @property
    def waiting(self) -> int:
        """How many messages wait; those in the consumer's hand do not."""
        return len(self._waiting)

    @property
    def is_consumed(self) -> bool:
        """Whether somebody takes from it."""
        return self._deliver is not None

    @property
    def room(self) -> int:
        """How many more make sense here: the consumer has work in hand, and as much waits."""
        return max(0, 2 * self._prefetch - len(self._waiting) - len(self._held)) if self.is_consumed else 0

    @property
    def _kept_room(self) -> int:
        return self._prefetch // 2

    def admits(self, outgoing: Outgoing) -> bool:
        """Whether ``outgoing``, which has a row, should come in now.

        A part of the room is kept for what the relay brings: a busy producer must not starve the rows that
        wait. Once a sending was refused, new ones stay out until those before them have come in.
        """
        if outgoing.relayed:
            return self.is_consumed
        admitted = self.room > self._kept_room and not self._behind
        self._behind = self.is_consumed and not admitted
        return admitted

    def put(self, outgoing: Outgoing) -> None:
        """Take it in, behind those of its priority."""
        self._arrivals += 1
        self._put(Message(outgoing, self._arrivals))

    def consume(self, prefetch: int, deliver: Deliver) -> None:
        """Deliver from now on, at most ``prefetch`` unacked."""
        self._prefetch, self._deliver = prefetch, deliver
        self._take_turn_soon()

    def stop(self) -> None:
        """Deliver no more. What is in hand stays there."""
        self._deliver = None

    def purge(self) -> int:
        """Throw away what waits; returns how many."""
        count = len(self._waiting)
        self._waiting.clear()
        return count

    def put_all_back(self) -> None:
        """Take back what is in the consumer's hand."""
        for delivery in tuple(self._held):
            self.put_back(delivery)

    # -- the endings of a delivery

    def ack(self, delivery: MemoryDelivery) -> None:
        """Forget it."""
        if not self._ends(delivery):
            return
        self._take_turn_soon()
        if self.room == max(1, self._kept_room):  # passed exactly once on the way from full to empty
            self._on_room()

    def put_back(self, delivery: MemoryDelivery) -> None:
        """Let it wait again, where it was before."""
        if self._ends(delivery):
            delivery.message.redelivered = True
            self._put(delivery.message)

    def bury(self, delivery: MemoryDelivery, reason: str) -> None:
        """Keep it as a dead letter."""
        if delivery in self._held:
            self._bury(DeadLetter(self.queue, delivery.body, reason))
        self.ack(delivery)

    def _ends(self, delivery: MemoryDelivery) -> bool:
        if delivery not in self._held:
            self._events.emit(AckLost(self.queue))
            return False
        self._held.remove(delivery)
        return True

    def _put(self, message: Message) -> None:
        heapq.heappush(self._waiting, message)
        self._take_turn_soon()

    def _take_turn_soon(self) -> None:
        # Never at once: `deliver` must not be called inside of a publish, or of another delivery's ending.
        if self.is_consumed and not self._turn_is_due:
            self._turn_is_due = True
            asyncio.get_running_loop().call_soon(self._take_turn)

    def _take_turn(self) -> None:
        self._turn_is_due = False
        # Its length is fixed before: a consumer that requeues at once must not keep the loop for itself.
        for _ in range(len(self._waiting)):
            if self._deliver is None or not self._waiting or len(self._held) >= self._prefetch:
                break
            message = heapq.heappop(self._waiting)
            delivery = MemoryDelivery(self, message, message.redelivered)
            self._held.add(delivery)
            self._deliver(delivery)
        if not self._waiting:
            self._behind = False


@dataclass(frozen=True, slots=True, eq=False)
class MemoryDelivery:
    """The `Delivery` of a lane."""

    lane: Lane
    message: Message
    redelivered: bool

    @property
    def queue(self) -> str:
        """See `Delivery.queue`."""
        return self.lane.queue

    @property
    def body(self) -> bytes:
        """See `Delivery.body`."""
        return self.message.outgoing.body

    @property
    def dispatch(self) -> int:
        """See `Delivery.dispatch`."""
        return self.message.outgoing.dispatch

    @property
    def is_open(self) -> bool:
        """See `Delivery.is_open`. Nobody but the worker itself can end it."""
        return True

    def ack(self) -> None:
        """See `Delivery.ack`."""
        self.lane.ack(self)

    def requeue(self) -> None:
        """See `Delivery.requeue`."""
        self.lane.put_back(self)

    def bury(self, reason: str) -> None:
        """See `Delivery.bury`."""
        self.lane.bury(self, reason)


class Delays:
    """Messages that wait for their time; ``release`` takes each when it has come. One task for all."""

    def __init__(self, clock: Clock, release: Callable[[Outgoing], None]) -> None:
        self._clock, self._release = clock, release
        self._pending: list[tuple[float, int, Outgoing]] = []
        self._arrivals = 0
        self._bell = Doorbell(clock)
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, delay: timedelta, outgoing: Outgoing) -> None:
        """Hold ``outgoing`` back for ``delay``."""
        self._arrivals += 1
        due = self._clock.monotonic() + delay.total_seconds()
        heapq.heappush(self._pending, (due, self._arrivals, outgoing))
        if self._pending[0][1] == self._arrivals:
            self._bell.ring()

    def start(self) -> None:
        """Begin to release."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="embedded delays")

    async def stop(self) -> None:
        """Release no more; what is held back stays."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _run(self) -> None:
        while True:
            while self._pending and self._pending[0][0] <= self._clock.monotonic():
                self._release(heapq.heappop(self._pending)[2])
            next_due = self._pending[0][0] - self._clock.monotonic() if self._pending else None
            await self._bell.wait(next_due)
