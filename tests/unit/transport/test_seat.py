"""What one consumer of a lane has: handed over one at a time, and which acks are kept back until its cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from jq_actors.events import AckLost, Events
from jq_actors.model.lane import Lane
from jq_actors.transport.port import Delivery
from jq_actors.transport.rabbitmq.amqp.acks import Acks
from jq_actors.transport.rabbitmq.amqp.consuming import Held, RabbitDelivery
from jq_actors.transport.rabbitmq.lanes.seat import End, Seat
from tests.support.recorder import EventRecorder

LANE = Lane("mail", "a")


class Broker:
    """Brings messages to a seat as RabbitMQ does: never more than its prefetch allows."""

    def __init__(self, events: Events) -> None:
        self.acks = Acks(1, lambda frames: None, events)
        self.brought = 0

    def bring(self, seat: Seat, count: int) -> None:
        for _ in range(count):
            self.brought += 1
            self.acks.opened(self.brought, "mail")
            held = RabbitDelivery("mail", b"%d" % self.brought, False, b"", self.brought, self.acks, never)
            seat.deliver(held)

    @property
    def unacked(self) -> list[int]:
        return [tag for tag in range(1, self.brought + 1) if self.acks.has(tag)]


class Hand:
    """Takes one delivery after the other."""

    def __init__(self) -> None:
        self.taken: list[Delivery] = []

    def __call__(self, delivery: Delivery) -> None:
        self.taken.append(delivery)

    async def end(self, count: int) -> None:
        """End so many jobs."""
        for _ in range(count):
            self.taken[-1].ack()
            await asyncio.sleep(0)


def never(held: Held, reason: str) -> None:
    raise AssertionError(reason)


def seated(hand: Hand, prefetch: int, turn: int, may_go_on: Callable[[Seat], bool] = lambda seat: True) -> Seat:
    return Seat(LANE, prefetch, turn, hand, never, may_go_on)


def gives_up_after(jobs: int) -> Callable[[Seat], bool]:
    def may_go_on(seat: Seat) -> bool:
        if seat.jobs == jobs:
            seat.give_up(End.HANDED_OVER)
        return True

    return may_go_on


async def test_nothing_is_handed_over_before_it_is_known_that_nobody_else_is_there() -> None:
    broker, hand = Broker(Events()), Hand()
    seat = seated(hand, 3, 3)
    broker.bring(seat, 3)
    assert hand.taken == []

    seat.go_on()

    assert [delivery.body for delivery in hand.taken] == [b"1"]


async def test_who_leaves_without_a_job_gives_all_back() -> None:
    broker, hand = Broker(Events()), Hand()
    seat = seated(hand, 3, 3)
    broker.bring(seat, 2)

    seat.give_up(End.DRAINED)

    assert seat.woken.is_set()
    assert not seat.is_clean
    assert [held.body for held in seat.rest()] == [b"1", b"2"]
    assert hand.taken == []


@pytest.mark.parametrize(("prefetch", "jobs"), [(1, 1), (3, 3), (3, 5), (1, 4)])
async def test_at_the_end_of_a_turn_as_many_are_unacked_as_the_broker_allows(prefetch: int, jobs: int) -> None:
    broker, hand = Broker(Events()), Hand()
    seat = seated(hand, prefetch, jobs, gives_up_after(jobs))
    seat.go_on()
    for number in range(jobs):
        broker.bring(seat, 1 if number >= prefetch else prefetch if number == 0 else 0)
        await hand.end(1)

    assert seat.is_clean
    assert broker.unacked == list(range(jobs - prefetch + 1, jobs + 1))
    assert seat.rest() == []
    assert broker.unacked == []


async def test_a_turn_that_goes_on_keeps_nothing_back() -> None:
    broker, hand = Broker(Events()), Hand()
    seat = seated(hand, 2, 2)
    seat.go_on()
    broker.bring(seat, 2)
    await hand.end(2)
    assert broker.unacked == [1, 2]

    seat.let_go()
    assert broker.unacked == []
    broker.bring(seat, 2)
    await hand.end(1)

    assert broker.unacked == [4]


async def test_an_ack_is_not_kept_back_for_long() -> None:
    broker, hand = Broker(Events()), Hand()
    seat = seated(hand, 3, 3)
    seat.go_on()
    broker.bring(seat, 3)
    seat.age()
    await hand.end(1)

    seat.age()
    assert broker.unacked == [1, 2, 3]
    seat.age()
    assert broker.unacked == [2, 3]
    await hand.end(1)
    assert broker.unacked == [3]


async def test_what_is_kept_back_is_acked_when_the_rest_has_to_go_back() -> None:
    broker, hand = Broker(Events()), Hand()
    seat = seated(hand, 3, 3)
    seat.go_on()
    broker.bring(seat, 3)
    await hand.end(1)

    seat.give_up(End.STOPPED)
    assert broker.unacked == [2, 3], "at once, since the job in hand may take long"
    assert not seat.woken.is_set()
    await hand.end(1)

    assert seat.woken.is_set()
    assert not seat.is_clean
    assert [held.body for held in seat.rest()] == [b"3"]


async def test_what_is_kept_back_when_the_channel_goes_is_counted_as_lost() -> None:
    events, hand = Events(), Hand()
    lost = EventRecorder(events, AckLost)
    broker = Broker(events)
    seat = seated(hand, 3, 3)
    seat.go_on()
    broker.bring(seat, 3)
    await hand.end(1)

    broker.acks.die()
    seat.give_up(End.LOST)
    assert len(lost.of(AckLost)) == 1
    hand.taken[-1].ack()

    assert len(lost.of(AckLost)) == 2


async def test_a_partition_keeps_nothing_back() -> None:
    broker, hand = Broker(Events()), Hand()
    seat = Seat(Lane("mail", "*", partition=(1, 2)), 2, 0, hand, never, lambda seat: True)
    seat.go_on()
    broker.bring(seat, 1)
    await hand.end(1)

    assert broker.unacked == []
