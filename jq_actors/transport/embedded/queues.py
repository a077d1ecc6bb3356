"""The queues of this process: the messages that wait, and those that their consumers have in hand."""

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
    """One message. A higher priority sorts first, then an earlier place."""

    outgoing: Outgoing
    place: int
    """Its number in the order of arrival, which a requeue does not change."""
    redelivered: bool = False

    def __lt__(self, other: Message) -> bool:
        return (-self.outgoing.priority, self.place) < (-other.outgoing.priority, other.place)


class Holder(ABC):
    """Holds messages, delivers them, and carries out the endings of its deliveries.

    Parameters:
      queue: the user's name of the queue.
      events: where lost acks are reported.
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
        """Whether there is a consumer."""
        return self._deliver is not None

    @property
    @abstractmethod
    def waiting(self) -> int:
        """How many messages wait; those in the consumer's hand do not count."""

    @abstractmethod
    def put(self, outgoing: Outgoing) -> None:
        """Add a message behind the earlier ones."""

    @abstractmethod
    def stop(self) -> None:
        """Stop delivering. Messages in hand stay in hand."""

    @abstractmethod
    async def close(self) -> None:
        """Put back all messages that are in hand."""

    @abstractmethod
    def purge(self) -> int:
        """Delete the waiting messages; returns how many."""

    # -- the endings of a delivery

    @abstractmethod
    def ack(self, delivery: MemoryDelivery) -> None:
        """Delete the delivery's message."""

    @abstractmethod
    def put_back(self, delivery: MemoryDelivery) -> None:
        """Let the delivery's message wait again, at its old place."""

    def bury(self, delivery: MemoryDelivery, reason: str) -> None:
        """Keep the message as a dead letter."""
        if self._holds(delivery):
            self._bury(DeadLetter(self.queue, delivery.body, reason))
        self.ack(delivery)

    @abstractmethod
    def _holds(self, delivery: MemoryDelivery) -> bool: ...

    @abstractmethod
    def _take_turn(self) -> None:
        """Deliver what may be delivered now, in a bounded number of steps: the consumer may give back at once."""

    def _arrived(self, outgoing: Outgoing) -> Message:
        self._arrivals += 1
        return Message(outgoing, self._arrivals)

    def _is_lost(self, delivery: MemoryDelivery) -> bool:
        if self._holds(delivery):
            return False
        self._events.emit(AckLost(self.queue))
        return True

    def _take_turn_soon(self) -> None:
        # Not at once: `deliver` must not be called within a publish, or within the ending of another delivery.
        if self.is_consumed and not self._turn_is_due:
            self._turn_is_due = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_is_due = False
        if self.is_consumed:  # it may have been stopped meanwhile
            self._take_turn()


class MemoryQueue(Holder):
    """The `Holder` of a plain queue. ``on_room``: see `Room`."""

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
        """How many messages wait; those in the consumer's hand do not count."""
        return len(self._waiting)

    def put(self, outgoing: Outgoing) -> None:
        """Add a message behind the others of its priority."""
        self.room.take(1)
        self._put(self._arrived(outgoing))

    def consume(self, prefetch: int, deliver: Deliver) -> None:
        """Deliver from now on, with at most ``prefetch`` unacked messages."""
        self._prefetch, self._deliver = prefetch, deliver
        self.room.open(2 * prefetch)  # as much as the consumer has in hand may wait here too
        self._take_turn_soon()

    def stop(self) -> None:
        """Stop delivering, and take no more sends. Messages in hand stay in hand."""
        self._deliver = None
        self.room.close()

    def purge(self) -> int:
        """Delete the waiting messages; returns how many."""
        count = len(self._waiting)
        self._waiting.clear()
        self.room.give(count)
        return count

    async def close(self) -> None:
        """Put back all messages that are in hand."""
        for delivery in tuple(self._held):
            self.put_back(delivery)

    def ack(self, delivery: MemoryDelivery) -> None:
        """Delete the delivery's message, which makes room for another."""
        if self._is_lost(delivery):
            return
        self._held.remove(delivery)
        self._take_turn_soon()
        self.room.give(1)

    def put_back(self, delivery: MemoryDelivery) -> None:
        """Let the delivery's message wait again, at its old place."""
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
    """The `Delivery` of the embedded transport."""

    holder: Holder
    message: Message
    redelivered: bool

    @property
    def queue(self) -> str:
        """The queue that it came from."""
        return self.holder.queue

    @property
    def body(self) -> bytes:
        """The encoded command."""
        return self.message.outgoing.body

    @property
    def dispatch(self) -> int:
        """The dispatch number that the publisher gave it."""
        return self.message.outgoing.dispatch

    @property
    def lane(self) -> Lane | None:
        """The lane that it came from; ``None``: the plain queue."""
        return self.message.outgoing.lane

    @property
    def is_open(self) -> bool:
        """Always true: only the worker itself can end the delivery."""
        return True

    def ack(self) -> None:
        """Delete the message."""
        self.holder.ack(self)

    def requeue(self) -> None:
        """Let the message wait again, at its old place."""
        self.holder.put_back(self)

    def bury(self, reason: str) -> None:
        """Keep the message as a dead letter."""
        self.holder.bury(self, reason)
