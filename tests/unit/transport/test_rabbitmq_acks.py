"""Acks: as few frames as possible, and never one that the broker would not know, or would take for more."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, frame

from jq_actors.events import AckLost, Events
from jq_actors.transport.rabbitmq.amqp.acks import Acks
from tests.support.recorder import EventRecorder


class Broker:
    """The unacked deliveries of a channel, as RabbitMQ keeps them: it closes the channel for an unknown tag."""

    def __init__(self) -> None:
        self.unacked: list[int] = []
        self.acked: list[int] = []
        self.requeued: list[int] = []
        self.frames = 0

    def receive(self, data: bytes) -> None:
        while data:
            size, channel, method = frame.unmarshal(data)
            data = data[size:]
            assert channel == 5
            self.frames += 1
            match method:
                case commands.Basic.Ack(delivery_tag=tag, multiple=multiple):
                    assert tag in self.unacked, f"unknown delivery tag {tag}"
                    ended = [open_tag for open_tag in self.unacked if open_tag == tag or (multiple and open_tag < tag)]
                    self.acked += ended
                case commands.Basic.Nack(delivery_tag=tag, multiple=False, requeue=True):
                    assert tag in self.unacked, f"unknown delivery tag {tag}"
                    ended = [tag]
                    self.requeued += ended
                case _:
                    raise AssertionError(method)
            self.unacked = [open_tag for open_tag in self.unacked if open_tag not in ended]


def acks_for(broker: Broker, events: Events | None = None) -> Acks:
    return Acks(5, broker.receive, events or Events())


def deliver(acks: Acks, broker: Broker, count: int) -> None:
    for tag in range(1, count + 1):
        broker.unacked.append(tag)
        acks.opened(tag, "q")


async def test_a_prefix_is_one_frame() -> None:
    broker = Broker()
    acks = acks_for(broker)
    deliver(acks, broker, 100)

    for tag in reversed(range(1, 81)):
        acks.ack(tag)
    acks.flush()

    assert (broker.frames, len(broker.acked)) == (1, 80)


async def test_behind_an_open_one_they_are_acked_singly() -> None:
    broker = Broker()
    acks = acks_for(broker)
    deliver(acks, broker, 5)

    for tag in (1, 3, 5):
        acks.ack(tag)
    acks.flush()

    assert broker.acked == [1, 3, 5]
    assert broker.unacked == [2, 4]


async def test_they_are_sent_once_in_a_turn_of_the_loop() -> None:
    broker = Broker()
    acks = acks_for(broker)
    deliver(acks, broker, 10)

    for tag in range(1, 11):
        acks.ack(tag)
    assert broker.frames == 0
    await asyncio.sleep(0)

    assert (broker.frames, len(broker.acked)) == (1, 10)


async def test_a_second_ending_never_reaches_the_broker() -> None:
    broker = Broker()
    acks = acks_for(broker)
    deliver(acks, broker, 2)

    acks.ack(1)
    acks.ack(1)
    acks.flush()
    acks.requeue(1)
    acks.flush()

    assert (broker.acked, broker.requeued) == ([1], [])


@given(st.data())
def test_whatever_the_order_each_delivery_ends_as_it_was_told(data: st.DataObject) -> None:
    async def run() -> None:
        broker = Broker()
        acks = acks_for(broker)
        count = data.draw(st.integers(1, 30))
        deliver(acks, broker, count)
        order = data.draw(st.permutations(range(1, count + 1)))
        ended = order[: data.draw(st.integers(0, count))]
        acked, requeued = list[int](), list[int]()
        for tag in ended:
            if data.draw(st.booleans()):
                acks.ack(tag)
                acked.append(tag)
            else:
                acks.requeue(tag)
                requeued.append(tag)
            if data.draw(st.booleans()):
                acks.flush()
        acks.flush()

        assert sorted(broker.acked) == sorted(acked)
        assert broker.requeued == requeued
        assert set(broker.unacked) == set(range(1, count + 1)) - set(ended)

    asyncio.run(run())


async def test_after_the_end_of_the_channel_they_are_counted_and_forgotten() -> None:
    broker, events = Broker(), Events()
    lost = EventRecorder(events, AckLost)
    acks = acks_for(broker, events)
    deliver(acks, broker, 3)
    acks.ack(1)

    acks.die()
    acks.ack(2)
    acks.requeue(3)
    acks.flush()

    assert broker.frames == 0
    assert lost.of(AckLost) == [AckLost("q")] * 3
