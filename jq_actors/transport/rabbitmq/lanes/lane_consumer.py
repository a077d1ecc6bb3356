"""One consumer of one lane: which messages it received, and which of them the worker has in hand."""

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
"""Groups of a partition that may have a job in this worker's hand at the same time."""


class End(IntEnum):
    """Why a consumer ends. Of several reasons the greatest counts."""

    DRAINED = 1
    """No more messages come."""
    HANDED_OVER = 2
    """Other lanes have their turn."""
    GIVEN_BACK = 3
    """A delivery was returned, and what came behind it must not overtake it."""
    STOPPED = 4
    """This worker takes no more messages."""
    LOST = 5
    """The broker has ended it, and taken back all that was in hand."""

    @property
    def why(self) -> str:
        """The reason, for people."""
        return "given back" if self is End.STOPPED else self.name.lower().replace("_", " ")


class LaneDelivery(RabbitDelivery):
    """The `Delivery` of a lane: when it ends, the next message is handed over."""

    __slots__ = ("_consumer", "held")

    def __init__(self, held: RabbitDelivery, consumer: LaneConsumer) -> None:
        super().__init__(held.queue, held.body, held.redelivered, held.header, held.tag, held._acks, consumer.bury)
        self.held, self._consumer = held, consumer

    @property
    def lane(self) -> Lane:
        """The lane that it came by."""
        return self._consumer.lane

    def ack(self) -> None:
        """The job is done."""
        self._consumer.finished(self)

    def requeue(self) -> None:
        """Return it to the lane, with all that came behind it."""
        self._consumer.returned(self)


class LaneConsumer:
    """Hands the messages of one consumer over one at a time; from a partition, one of each group at a time.

    Nothing is handed over before the first `resume`. The acks of the last ``prefetch`` jobs of a turn are kept: as long
    as so many messages are unacked the broker sends no more. So when a consumer is cancelled that keeps ``prefetch``
    acks, no message can be on its way to it (`is_clean`), and the acks go out behind the cancel.

    Parameters:
      prefetch: how many messages may be unacked.
      turn: how many messages it means to take before other lanes have their turn; 0: it keeps no acks.
      after_job: called when a job has finished and the consumer has not ended. It may end the consumer. Returns whether
        the next message is handed over at once; if not, `woken` is set and `resume` is waited for.
    """

    def __init__(
        self,
        lane: Lane,
        prefetch: int,
        turn: int,
        deliver: Deliver,
        bury: Bury,
        after_job: Callable[[LaneConsumer], bool],
    ) -> None:
        self.lane, self.queue, self.prefetch, self.bury = lane, lane.queue, prefetch, bury
        self.received = 0
        """How many messages the broker has delivered."""
        self.jobs = 0
        """How many of them have been acked."""
        self.end: End | None = None
        """Once it is set, nothing more is handed over."""
        self.woken = asyncio.Event()
        """Set when nothing is in hand, and the service has to end the consumer or to decide whether it goes on."""
        self._hand_to_worker, self._after_job = deliver, after_job
        self._waiting: deque[RabbitDelivery] = deque()
        self._in_hand: dict[LaneDelivery, bytes] = {}
        self._returned: list[RabbitDelivery] = []
        self._kept: list[RabbitDelivery] = []
        """Finished jobs whose acks are kept."""
        self._acked_at_once = max(0, turn - prefetch)
        self._keeps_acks, self._have_aged = turn > 0, False
        self._is_due, self._is_held = False, True

    @property
    def is_hand_empty(self) -> bool:
        """Whether none of its messages is in the worker's hand."""
        return not self._in_hand

    @property
    def is_empty(self) -> bool:
        """Whether none of its messages is in the worker's hand or waits for that."""
        return not self._in_hand and not self._waiting

    @property
    def has_nothing_to_return(self) -> bool:
        """Whether no message has to be returned to the lane."""
        return not self._waiting and not self._returned

    @property
    def is_clean(self) -> bool:
        """Whether no message has to be returned, and none can arrive before an ack is sent."""
        return self.is_empty and not self._returned and len(self._kept) == self.prefetch

    def resume(self) -> None:
        """Hand over the next message."""
        self._is_held = False
        if self.end is None:
            self.woken.clear()
            self.allow_more()
            self._hand_over()

    def end_with(self, end: End) -> None:
        """Hand nothing more over. `woken` is set when nothing is in hand, or at once when all was lost."""
        self.end = end if self.end is None else max(self.end, end)
        if self.is_hand_empty or end is End.LOST:
            self.woken.set()
        if not self.is_hand_empty or end is End.LOST:
            self.send_kept_acks()

    def allow_more(self) -> None:
        """Send the kept acks if the broker would deliver nothing more without them."""
        if len(self._kept) == self.prefetch:
            self.send_kept_acks()

    def send_kept_acks(self) -> None:
        """Send the kept acks, and keep none any more."""
        self._keeps_acks = False
        kept, self._kept = self._kept, []
        for held in kept:
            held.ack()

    def age(self) -> None:
        """Send the kept acks if no job has finished since the last call: a long job must not hold them up."""
        if self._kept and self._have_aged:
            self.send_kept_acks()
        self._have_aged = bool(self._kept)

    def take_unfinished(self) -> list[RabbitDelivery]:
        """Send the kept acks, and take all messages that have to be returned, in the lane's order."""
        self.send_kept_acks()
        unfinished = _in_order(*self._returned, *self._waiting)
        self._returned.clear()
        self._waiting.clear()
        return unfinished

    # -- the end of a delivery

    def finished(self, delivery: LaneDelivery) -> None:
        """The job of ``delivery`` is done."""
        if self._in_hand.pop(delivery, None) is None:
            return
        self.jobs += 1
        if self._keeps_acks and self.jobs > self._acked_at_once and delivery.is_open:
            self._kept.append(delivery.held)
            self._have_aged = False
        else:
            delivery.held.ack()
        self._continue()

    def returned(self, delivery: LaneDelivery) -> None:
        """The job of ``delivery`` is not done. Its message goes back to the lane, and the consumer ends."""
        if self._in_hand.pop(delivery, None) is None:
            return
        held = delivery.held
        if not held.is_open:
            held.requeue()  # counts it as lost
        elif self.end is None and self._in_hand:
            # In a partition, no other worker may serve the lane before the jobs of the other groups have finished.
            self._wait_again(held)
        else:
            self._returned.append(held)
            self.end_with(End.GIVEN_BACK)

    def _wait_again(self, held: RabbitDelivery) -> None:
        held.redelivered = True
        self._waiting = deque(_in_order(held, *self._waiting))
        self._hand_over_soon()

    # -- from one message to the next

    def deliver(self, delivery: RabbitDelivery, /) -> None:
        """The broker has delivered a message."""
        self.received += 1
        self._waiting.append(delivery)
        self._hand_over()

    def _continue(self) -> None:
        if self.end is None:
            self._is_held = self._is_held or not self._after_job(self)
        if self.end is None and not self._is_held:
            self._hand_over_soon()
        elif self.is_hand_empty:
            self.woken.set()

    def _hand_over_soon(self) -> None:
        # Never at once: `deliver` must not be called while another delivery is being ended.
        if self._waiting and not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._hand_over)

    def _hand_over(self) -> None:
        self._is_due = False
        while self.end is None and not self._is_held and (held := self._next()) is not None:
            delivery = LaneDelivery(held, self)
            self._in_hand[delivery] = self._group_of(held)
            self._hand_to_worker(delivery)

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


def _in_order(*deliveries: RabbitDelivery) -> list[RabbitDelivery]:
    return sorted(deliveries, key=lambda delivery: delivery.tag)
