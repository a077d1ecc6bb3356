"""One consumer on one lane: what came by it, and what of that is in the worker's hand."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from enum import IntEnum

from jq_actors.model.lane import Lane
from jq_actors.transport.port import Deliver
from jq_actors.transport.rabbitmq.amqp import wire
from jq_actors.transport.rabbitmq.amqp.consuming import Bury, RabbitDelivery

GROUPS_AT_ONCE = 32
"""Most groups of a partition that have a job in this worker's hand."""


class End(IntEnum):
    """Why a seat is given up. Of several reasons the greatest counts."""

    DRAINED = 1
    """Nothing comes any more."""
    HANDED_OVER = 2
    """Others have their turn."""
    GIVEN_BACK = 3
    """A delivery was given back: what came behind it must not overtake it."""
    STOPPED = 4
    """This worker takes nothing any more."""
    LOST = 5
    """The broker has taken it away, with all that was in hand."""

    @property
    def why(self) -> str:
        """For people."""
        return "given back" if self is End.STOPPED else self.name.lower().replace("_", " ")


class LaneDelivery:
    """The `Delivery` of a lane: its end lets the next one come."""

    __slots__ = ("_held", "_seat")

    def __init__(self, held: RabbitDelivery, seat: Seat) -> None:
        self._held, self._seat = held, seat

    @property
    def queue(self) -> str:
        """See `Delivery.queue`."""
        return self._held.queue

    @property
    def body(self) -> bytes:
        """See `Delivery.body`."""
        return self._held.body

    @property
    def header(self) -> bytes:
        """See `consuming.Held`."""
        return self._held.header

    @property
    def dispatch(self) -> int:
        """See `Delivery.dispatch`."""
        return self._held.dispatch

    @property
    def redelivered(self) -> bool:
        """See `Delivery.redelivered`."""
        return self._held.redelivered

    @property
    def is_open(self) -> bool:
        """See `Delivery.is_open`."""
        return self._held.is_open

    @property
    def lane(self) -> Lane | None:
        """See `Delivery.lane`."""
        return self._seat.lane

    def ack(self) -> None:
        """See `Delivery.ack`."""
        self._seat.ended(self, self._held)

    def requeue(self) -> None:
        """See `Delivery.requeue`."""
        self._seat.took_back(self, self._held)

    def bury(self, reason: str) -> None:
        """See `Delivery.bury`."""
        self._seat.bury(self, reason)


class Seat:
    """Hands what comes by one consumer over, one at a time: of a partition, one of each group.

    Nothing is handed over before the first `go_on`. The acks of the last ``prefetch`` jobs of a turn are kept back: as
    long as so many are unacked the broker sends nothing, so that nothing can cross the cancel of a consumer that has
    them all (`is_clean`), and they go out behind it.

    Parameters:
      prefetch: most unacked messages.
      turn: messages that it means to take before others have their turn; 0: it keeps no ack back.
      may_go_on: asked after each job whether the next one is handed over at once.
    """

    def __init__(
        self,
        lane: Lane,
        prefetch: int,
        turn: int,
        deliver: Deliver,
        bury: Bury,
        may_go_on: Callable[[Seat], bool],
    ) -> None:
        self.lane, self.prefetch, self.bury = lane, prefetch, bury
        self.taken = 0
        """How many messages came."""
        self.jobs = 0
        """How many of them have ended here."""
        self.end: End | None = None
        """Set: nothing more is handed over."""
        self.woken = asyncio.Event()
        """Set when nothing is in hand and something is to be decided: the end, or whether to go on."""
        self._deliver, self._may_go_on = deliver, may_go_on
        self._waiting: deque[RabbitDelivery] = deque()
        self._in_hand: dict[LaneDelivery, bytes] = {}
        self._taken_back: list[RabbitDelivery] = []
        self._ended: list[RabbitDelivery] = []
        """Jobs that have ended, whose acks are kept back."""
        self._acked_freely = max(0, turn - prefetch)
        self._keeps_back, self._have_aged = turn > 0, False
        self._is_due, self._is_held = False, True

    @property
    def queue(self) -> str:
        """The user's name of the queue."""
        return self.lane.queue

    @property
    def deliver(self) -> Callable[[RabbitDelivery], None]:
        """Takes what the consumer brings."""
        return self._take

    @property
    def is_free(self) -> bool:
        """Whether nothing of it is in the worker's hand."""
        return not self._in_hand

    @property
    def is_empty(self) -> bool:
        """Whether nothing of it is in the worker's hand or waits for that."""
        return not self._in_hand and not self._waiting

    @property
    def has_no_rest(self) -> bool:
        """Whether nothing is to be given back."""
        return not self._waiting and not self._taken_back

    @property
    def is_clean(self) -> bool:
        """Whether nothing is to be given back, and nothing more can come before an ack is sent."""
        return self.is_empty and not self._taken_back and len(self._ended) == self.prefetch

    def go_on(self) -> None:
        """Hand over again, after it was held."""
        self._is_held = False
        if self.end is None:
            self.woken.clear()
            self.let_more_come()
            self._hand_over()

    def give_up(self, end: End) -> None:
        """Hand nothing more over. `woken` is set when what is in hand has ended; what is lost has ended at once."""
        self.end = end if self.end is None else max(self.end, end)
        if self.is_free or end is End.LOST:
            self.woken.set()
        if not self.is_free or end is End.LOST:
            self.let_go()

    def let_more_come(self) -> None:
        """Let go, if the broker would send nothing else."""
        if len(self._ended) == self.prefetch:
            self.let_go()

    def let_go(self) -> None:
        """Ack all that has ended, and keep nothing back any more."""
        self._keeps_back = False
        ended, self._ended = self._ended, []
        for held in ended:
            held.ack()

    def age(self) -> None:
        """Called now and then: acks are kept back only while one job after the other ends. A long one lets them go."""
        if self._ended and self._have_aged:
            self.let_go()
        self._have_aged = bool(self._ended)

    def rest(self) -> list[RabbitDelivery]:
        """Ack what has ended; take away all that is to be given back, in its order."""
        self.let_go()
        rest = sorted([*self._taken_back, *self._waiting], key=lambda delivery: delivery.tag)
        self._taken_back.clear()
        self._waiting.clear()
        return rest

    # -- the endings of a delivery

    def ended(self, delivery: LaneDelivery, held: RabbitDelivery) -> None:
        """It is done."""
        if self._in_hand.pop(delivery, None) is None:
            return
        self.jobs += 1
        if self._keeps_back and self.jobs > self._acked_freely and held.is_open:
            self._ended.append(held)
            self._have_aged = False
        else:
            held.ack()
        self._let_next_come()

    def took_back(self, delivery: LaneDelivery, held: RabbitDelivery) -> None:
        """It is not done, and goes back to the lane; the seat ends so."""
        if self._in_hand.pop(delivery, None) is None:
            return
        if not held.is_open:
            held.requeue()  # counts it as lost
            return
        if self.end is None and self._in_hand:
            self._put_back(held)  # of a partition: no other worker may go on before the other groups' jobs have ended
            return
        self._taken_back.append(held)
        self.give_up(End.GIVEN_BACK)

    def _put_back(self, held: RabbitDelivery) -> None:
        held.redelivered = True
        self._waiting = deque(sorted([held, *self._waiting], key=lambda delivery: delivery.tag))
        self._hand_over_soon()

    # -- from one to the next

    def _take(self, delivery: RabbitDelivery) -> None:
        self.taken += 1
        self._waiting.append(delivery)
        self._hand_over()

    def _let_next_come(self) -> None:
        if self.end is None:
            self._is_held = self._is_held or not self._may_go_on(self)
        if self.end is not None or self._is_held:
            if self.is_free:
                self.woken.set()
        else:
            self._hand_over_soon()

    def _hand_over_soon(self) -> None:
        # Never at once: `deliver` must not be called inside of another delivery's ending.
        if self._waiting and not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._hand_over)

    def _hand_over(self) -> None:
        self._is_due = False
        while self.end is None and not self._is_held and (held := self._next()) is not None:
            delivery = LaneDelivery(held, self)
            self._in_hand[delivery] = self._group_of(held)
            self._deliver(delivery)

    def _next(self) -> RabbitDelivery | None:
        if not self._waiting:
            return None
        if self.lane.partition is None:
            return None if self._in_hand else self._waiting.popleft()
        if len(self._in_hand) >= GROUPS_AT_ONCE:
            return None
        busy = set(self._in_hand.values())
        for place, held in enumerate(self._waiting):
            if self._group_of(held) not in busy:
                del self._waiting[place]
                return held
        return None

    def _group_of(self, held: RabbitDelivery) -> bytes:
        return wire.read_group(held.header) if self.lane.partition is not None else b""
