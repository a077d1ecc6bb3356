"""The lanes of one queue in this process, and the slots that serve them.

In place of a broker's tokens, the lobby here is a plain line of lanes that wait for a slot. Nothing else looks at it,
so no wake-up can be lost between a look and the step after it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from jq_actors.clock import Clock
from jq_actors.events import Events, LaneClosed, LaneOpened
from jq_actors.model.lane import Fairness, Lane
from jq_actors.transport.port import Deliver, Outgoing, QueueDepth
from jq_actors.transport.tokens import hands_over

from .lane import MemoryLane
from .queues import DeadLetter, Holder, MemoryDelivery


@dataclass(slots=True, eq=False)
class _Seat:
    """A slot that serves a lane."""

    lane: MemoryLane
    since: float
    served: int = 0


class MemoryLanes(Holder):
    """The `Holder` of a queue's lanes. It forgets a lane that is empty and unserved."""

    def __init__(self, queue: str, clock: Clock, events: Events, bury: Callable[[DeadLetter], None]) -> None:
        super().__init__(queue, events, bury)
        self._clock = clock
        self._lanes: dict[Lane, MemoryLane] = {}
        self._lobby: OrderedDict[MemoryLane, None] = OrderedDict()
        self._held: dict[MemoryDelivery, _Seat] = {}
        self._idle: list[_Seat] = []
        """Seats whose delivery has ended. The next turn gives them another one, or leaves them."""
        self._slots, self._serving = 0, 0
        self._fairness = Fairness()

    @property
    def waiting(self) -> int:
        """How many messages wait, in all lanes together."""
        return sum(lane.waiting for lane in self._lanes.values())

    def put(self, outgoing: Outgoing) -> None:
        """Add a message to its lane, which is created if need be."""
        assert outgoing.lane is not None
        lane = self._lanes.get(outgoing.lane)
        if lane is None:
            lane = self._lanes[outgoing.lane] = MemoryLane(outgoing.lane)
        lane.put(self._arrived(outgoing))
        self._see(lane)

    def serve(self, slots: int, fairness: Fairness, deliver: Deliver) -> None:
        """Deliver from now on, at most ``slots`` messages at once."""
        self._slots, self._fairness, self._deliver = slots, fairness, deliver
        self._take_turn_soon()

    def stop(self) -> None:
        """Stop delivering, and leave the seats that have nothing in hand."""
        self._deliver = None
        for seat in self._taken_idle():
            self._leave_seat(seat, "given back")

    async def close(self) -> None:
        """Put back all messages that are in hand."""
        for delivery in tuple(self._held):
            self.put_back(delivery)

    def purge(self) -> int:
        """Delete the waiting messages of all lanes; returns how many."""
        lanes, count = tuple(self._lanes.values()), self.waiting
        for lane in lanes:
            lane.purge()
            self._see(lane)
        return count

    # -- the endings of a delivery

    def ack(self, delivery: MemoryDelivery) -> None:
        """Delete the delivery's message. Its seat gets the lane's next one, or is left."""
        if self._is_lost(delivery):
            return
        seat = self._held.pop(delivery)
        seat.served += 1
        seat.lane.end(delivery.message)
        if self.is_consumed:
            self._idle.append(seat)
            self._take_turn_soon()
        else:
            self._leave_seat(seat, "given back")

    def put_back(self, delivery: MemoryDelivery) -> None:
        """Put the message back at its place, and leave the seat: the lane waits behind the others."""
        if self._is_lost(delivery):
            return
        seat, message = self._held.pop(delivery), delivery.message
        message.redelivered = True
        seat.lane.end(message)
        seat.lane.put(message)
        self._leave_seat(seat, "given back")

    def _holds(self, delivery: MemoryDelivery) -> bool:
        return delivery in self._held

    # -- serving

    def _take_turn(self) -> None:
        for seat in self._taken_idle():
            self._serve_on(seat)
        for _ in range(len(self._lobby)):
            if self._serving >= self._slots or not self._lobby:
                break
            lane, _ = self._lobby.popitem(last=False)
            self._begin(lane)

    def _taken_idle(self) -> list[_Seat]:
        idle, self._idle = self._idle, []
        return idle

    def _serve_on(self, seat: _Seat) -> None:
        if not seat.lane.is_ready:
            self._leave_seat(seat, "drained")
        elif self._hands_over(seat):
            self._leave_seat(seat, "handed over")
        else:
            self._fill(seat)

    def _hands_over(self, seat: _Seat) -> bool:
        others = len(self._lobby) - (seat.lane in self._lobby)
        seconds = self._clock.monotonic() - seat.since
        return hands_over(seat.served, seconds, seat.lane.lane.weight, self._fairness, QueueDepth(others, 1))

    def _begin(self, lane: MemoryLane) -> None:
        seat = _Seat(lane, self._clock.monotonic())
        lane.seats += 1
        self._serving += 1
        self._events.emit(LaneOpened(self.queue, lane.lane.key, self._serving))
        self._fill(seat)

    def _fill(self, seat: _Seat) -> None:
        """Deliver the next message of the seat's lane."""
        assert self._deliver is not None
        message = seat.lane.next()
        delivery = MemoryDelivery(self, message, message.redelivered)
        self._held[delivery] = seat
        self._see(seat.lane)
        self._deliver(delivery)

    def _leave_seat(self, seat: _Seat, why: str) -> None:
        """Free the seat's slot. If the lane still has messages, it waits behind the other lanes."""
        lane = seat.lane
        lane.seats -= 1
        self._serving -= 1
        self._events.emit(LaneClosed(self.queue, lane.lane.key, why, seat.served))
        self._lobby.pop(lane, None)
        self._see(lane)

    def _see(self, lane: MemoryLane) -> None:
        """After a change of ``lane``: let it wait for a slot or not, or forget it."""
        if lane.wants_seat:
            self._lobby.setdefault(lane)
            self._take_turn_soon()
            return
        self._lobby.pop(lane, None)
        if lane.is_over:
            self._lanes.pop(lane.lane, None)
