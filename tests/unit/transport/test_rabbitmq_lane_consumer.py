"""One consumer of a lane: its messages are handed over one at a time, and some acks are kept until its cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from jq_actors.events import AckLost, Events
from jq_actors.model.lane import Lane
from jq_actors.transport.port import Delivery
from jq_actors.transport.rabbitmq.amqp.acks import Acks
from jq_actors.transport.rabbitmq.amqp.consuming import RabbitDelivery
from jq_actors.transport.rabbitmq.lanes.lane_consumer import End, LaneConsumer
from tests.support.recorder import EventRecorder

LANE = Lane("mail", "a")


class Broker:
    """Delivers messages to a consumer as RabbitMQ does: never more than its prefetch allows."""

    def __init__(self, events: Events) -> None:
        self.acks = Acks(1, lambda frames: None, events)
        self.brought = 0

    def bring(self, consumer: LaneConsumer, count: int) -> None:
        for _ in range(count):
            self.brought += 1
            self.acks.opened(self.brought, "mail")
            held = RabbitDelivery("mail", b"%d" % self.brought, False, b"", self.brought, self.acks, never)
            consumer.deliver(held)

    @property
    def unacked(self) -> list[int]:
        return [tag for tag in range(1, self.brought + 1) if self.acks.has(tag)]


class Hand:
    """Takes one delivery after the other."""

    def __init__(self) -> None:
        self.received: list[Delivery] = []

    def __call__(self, delivery: Delivery) -> None:
        self.received.append(delivery)

    async def end(self, count: int) -> None:
        """End so many jobs."""
        for _ in range(count):
            self.received[-1].ack()
            await asyncio.sleep(0)


def never(held: RabbitDelivery, reason: str) -> None:
    raise AssertionError(reason)


def started(
    hand: Hand, prefetch: int, turn: int, after_job: Callable[[LaneConsumer], bool] = lambda consumer: True
) -> LaneConsumer:
    return LaneConsumer(LANE, prefetch, turn, hand, never, after_job)


def ends_after(jobs: int) -> Callable[[LaneConsumer], bool]:
    def after_job(consumer: LaneConsumer) -> bool:
        if consumer.jobs == jobs:
            consumer.end_with(End.HANDED_OVER)
        return True

    return after_job


async def test_nothing_is_handed_over_before_it_is_known_that_nobody_else_is_there() -> None:
    broker, hand = Broker(Events()), Hand()
    consumer = started(hand, 3, 3)
    broker.bring(consumer, 3)
    assert hand.received == []

    consumer.resume()

    assert [delivery.body for delivery in hand.received] == [b"1"]


async def test_without_a_job_all_messages_are_returned() -> None:
    broker, hand = Broker(Events()), Hand()
    consumer = started(hand, 3, 3)
    broker.bring(consumer, 2)

    consumer.end_with(End.DRAINED)

    assert consumer.woken.is_set()
    assert not consumer.is_clean
    assert [held.body for held in consumer.take_unfinished()] == [b"1", b"2"]
    assert hand.received == []


@pytest.mark.parametrize(("prefetch", "jobs"), [(1, 1), (3, 3), (3, 5), (1, 4)])
async def test_at_the_end_of_a_turn_as_many_are_unacked_as_the_broker_allows(prefetch: int, jobs: int) -> None:
    broker, hand = Broker(Events()), Hand()
    consumer = started(hand, prefetch, jobs, ends_after(jobs))
    consumer.resume()
    for number in range(jobs):
        broker.bring(consumer, 1 if number >= prefetch else prefetch if number == 0 else 0)
        await hand.end(1)

    assert consumer.is_clean
    assert broker.unacked == list(range(jobs - prefetch + 1, jobs + 1))
    assert consumer.take_unfinished() == []
    assert broker.unacked == []


async def test_a_turn_that_goes_on_keeps_nothing_back() -> None:
    broker, hand = Broker(Events()), Hand()
    consumer = started(hand, 2, 2)
    consumer.resume()
    broker.bring(consumer, 2)
    await hand.end(2)
    assert broker.unacked == [1, 2]

    consumer.send_kept_acks()
    assert broker.unacked == []
    broker.bring(consumer, 2)
    await hand.end(1)

    assert broker.unacked == [4]


async def test_an_ack_is_not_kept_back_for_long() -> None:
    broker, hand = Broker(Events()), Hand()
    consumer = started(hand, 3, 3)
    consumer.resume()
    broker.bring(consumer, 3)
    consumer.age()
    await hand.end(1)

    consumer.age()
    assert broker.unacked == [1, 2, 3]
    consumer.age()
    assert broker.unacked == [2, 3]
    await hand.end(1)
    assert broker.unacked == [3]


async def test_what_is_kept_back_is_acked_when_the_rest_has_to_go_back() -> None:
    broker, hand = Broker(Events()), Hand()
    consumer = started(hand, 3, 3)
    consumer.resume()
    broker.bring(consumer, 3)
    await hand.end(1)

    consumer.end_with(End.STOPPED)
    assert broker.unacked == [2, 3], "at once, since the job in hand may take long"
    assert not consumer.woken.is_set()
    await hand.end(1)

    assert consumer.woken.is_set()
    assert not consumer.is_clean
    assert [held.body for held in consumer.take_unfinished()] == [b"3"]


async def test_what_is_kept_back_when_the_channel_goes_is_counted_as_lost() -> None:
    events, hand = Events(), Hand()
    lost = EventRecorder(events, AckLost)
    broker = Broker(events)
    consumer = started(hand, 3, 3)
    consumer.resume()
    broker.bring(consumer, 3)
    await hand.end(1)

    broker.acks.die()
    consumer.end_with(End.LOST)
    assert len(lost.of(AckLost)) == 1
    hand.received[-1].ack()

    assert len(lost.of(AckLost)) == 2


async def test_a_partition_keeps_nothing_back() -> None:
    broker, hand = Broker(Events()), Hand()
    consumer = LaneConsumer(Lane("mail", "*", partition=(1, 2)), 2, 0, hand, never, lambda consumer: True)
    consumer.resume()
    broker.bring(consumer, 1)
    await hand.end(1)

    assert broker.unacked == []
