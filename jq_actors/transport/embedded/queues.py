"""Queues in this process: what waits in them, and what their consumers have in hand."""

from __future__ import annotations

import asyncio
import heapq
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from jq_actors.events import AckLost, Events
from jq_actors.model.lane import Lane
from jq_actors.transport.port import Deliver, Outgoing

from .room import Room


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A delivery that was buried."""

    queue: str
    body: bytes
    reason: str


@dataclass(slots=True, eq=False)
class Message:
    """One message. Higher priority sorts first, then who came first."""

    outgoing: Outgoing
    place: int
    """Its place in the order of arrival; a requeue does not change it."""
    redelivered: bool = False

    def __lt__(self, other: Message) -> bool:
        return (-self.outgoing.priority, self.place) < (-other.outgoing.priority, other.place)


class Holder(ABC):
    """Holds messages, delivers them, and takes the endings of its deliveries.

    Parameters:
      queue: the user's name.
      bury: takes a dead letter.
    """

    def __init__(self, queue: str, events: Events, bury: Callable[[DeadLetter], None]) -> None:
        self.queue = queue
        self._events, self._bury = events, bury
        self._deliver: Deliver | None = None
        self._arrivals = 0
        self._turn_is_due = False

    @property
    def is_consumed(self) -> bool:
        """Whether somebody takes from it."""
        return self._deliver is not None

    @property
    @abstractmethod
    def waiting(self) -> int:
        """How many messages wait; those in the consumer's hand do not."""

    @abstractmethod
    def put(self, outgoing: Outgoing) -> None:
        """Take it in, behind those before it."""

    @abstractmethod
    def stop(self) -> None:
        """Deliver no more. What is in hand stays there."""

    @abstractmethod
    async def close(self) -> None:
        """Take back what is in the consumer's hand."""

    @abstractmethod
    def purge(self) -> int:
        """Throw away what waits; returns how many."""

    # -- the endings of a delivery

    @abstractmethod
    def ack(self, delivery: MemoryDelivery) -> None:
        """Forget it."""

    @abstractmethod
    def put_back(self, delivery: MemoryDelivery) -> None:
        """Let it wait again, where it was before."""

    def bury(self, delivery: MemoryDelivery, reason: str) -> None:
        """Keep it as a dead letter."""
        if self._holds(delivery):
            self._bury(DeadLetter(self.queue, delivery.body, reason))
        self.ack(delivery)

    @abstractmethod
    def _holds(self, delivery: MemoryDelivery) -> bool: ...

    @abstractmethod
    def _take_turn(self) -> None:
        """Deliver what may be delivered now, in bounded time: one who gives back at once must not keep the loop."""

    def _arrived(self, outgoing: Outgoing) -> Message:
        self._arrivals += 1
        return Message(outgoing, self._arrivals)

    def _is_lost(self, delivery: MemoryDelivery) -> bool:
        if self._holds(delivery):
            return False
        self._events.emit(AckLost(self.queue))
        return True

    def _take_turn_soon(self) -> None:
        # Never at once: `deliver` must not be called inside of a publish, or of another delivery's ending.
        if self.is_consumed and not self._turn_is_due:
            self._turn_is_due = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_is_due = False
        if self.is_consumed:  # stopped meanwhile?
            self._take_turn()


class MemoryQueue(Holder):
    """A plain queue. ``on_room``: see `Room`."""

    def __init__(
        self, queue: str, events: Events, bury: Callable[[DeadLetter], None], on_room: Callable[[], None]
    ) -> None:
        super().__init__(queue, events, bury)
        self.room = Room(on_room)
        self._waiting: list[Message] = []
        self._held: set[MemoryDelivery] = set()
        self._prefetch = 0

    @property
    def waiting(self) -> int:
        """See `Holder.waiting`."""
        return len(self._waiting)

    def put(self, outgoing: Outgoing) -> None:
        """Take it in, behind those of its priority."""
        self.room.take(1)
        self._put(self._arrived(outgoing))

    def consume(self, prefetch: int, deliver: Deliver) -> None:
        """Deliver from now on, at most ``prefetch`` unacked."""
        self._prefetch, self._deliver = prefetch, deliver
        self.room.open(2 * prefetch)  # the consumer has work in hand, and as much waits
        self._take_turn_soon()

    def stop(self) -> None:
        """See `Holder.stop`."""
        self._deliver = None
        self.room.close()

    def purge(self) -> int:
        """See `Holder.purge`."""
        count = len(self._waiting)
        self._waiting.clear()
        self.room.give(count)
        return count

    async def close(self) -> None:
        """See `Holder.close`."""
        for delivery in tuple(self._held):
            self.put_back(delivery)

    def ack(self, delivery: MemoryDelivery) -> None:
        """See `Holder.ack`."""
        if self._is_lost(delivery):
            return
        self._held.remove(delivery)
        self._take_turn_soon()
        self.room.give(1)

    def put_back(self, delivery: MemoryDelivery) -> None:
        """See `Holder.put_back`."""
        if self._is_lost(delivery):
            return
        self._held.remove(delivery)
        delivery.message.redelivered = True
        self._put(delivery.message)

    def _holds(self, delivery: MemoryDelivery) -> bool:
        return delivery in self._held

    def _put(self, message: Message) -> None:
        heapq.heappush(self._waiting, message)
        self._take_turn_soon()

    def _take_turn(self) -> None:
        for _ in range(len(self._waiting)):
            if self._deliver is None or not self._waiting or len(self._held) >= self._prefetch:
                break
            message = heapq.heappop(self._waiting)
            delivery = MemoryDelivery(self, message, message.redelivered)
            self._held.add(delivery)
            self._deliver(delivery)
        if not self._waiting:
            self.room.caught_up()


@dataclass(frozen=True, slots=True, eq=False)
class MemoryDelivery:
    """The `Delivery` of this process."""

    holder: Holder
    message: Message
    redelivered: bool

    @property
    def queue(self) -> str:
        """See `Delivery.queue`."""
        return self.holder.queue

    @property
    def body(self) -> bytes:
        """See `Delivery.body`."""
        return self.message.outgoing.body

    @property
    def dispatch(self) -> int:
        """See `Delivery.dispatch`."""
        return self.message.outgoing.dispatch

    @property
    def lane(self) -> Lane | None:
        """See `Delivery.lane`."""
        return self.message.outgoing.lane

    @property
    def is_open(self) -> bool:
        """See `Delivery.is_open`. Nobody but the worker itself can end it."""
        return True

    def ack(self) -> None:
        """See `Delivery.ack`."""
        self.holder.ack(self)

    def requeue(self) -> None:
        """See `Delivery.requeue`."""
        self.holder.put_back(self)

    def bury(self, reason: str) -> None:
        """See `Delivery.bury`."""
        self.holder.bury(self, reason)
