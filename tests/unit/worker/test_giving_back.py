"""Giving back what a consumer has, while its channel goes: the broker has it all back, and no ending is lost."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from pamqp import commands, frame

from jq_actors.errors import TransportError
from jq_actors.events import AckLost, Events
from jq_actors.transport.port import QueueDepth
from jq_actors.transport.rabbitmq.amqp import wire
from jq_actors.transport.rabbitmq.amqp.consuming import RabbitDelivery
from jq_actors.transport.rabbitmq.lanes.lane_channel import LaneChannel
from tests.support.recorder import EventRecorder

TAG, LANE = "lane.1", "jq.g.mail.a"


class Channel:
    """The part of aio-pika's channel that is used."""

    is_closed = False


class Link:
    """The part of a link that is used; it answers each look, with what the test says before the answer."""

    is_lost = True

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.before_the_answer: Callable[[], None] = lambda: None
        self._sinks: list[Any] = []

    def attach(self, channel: Any, sink: Any) -> int:
        self._sinks.append(sink)
        return 1

    def write(self, frames: bytes) -> None:
        self.written.append(frames)
        if frames.endswith(wire.look(1, LANE)):
            asyncio.get_running_loop().call_soon(self._answer)

    def _answer(self) -> None:
        self.before_the_answer()
        if self._sinks[0].is_alive:
            self._sinks[0].on_declared(frame.marshal(commands.Queue.DeclareOk(LANE, 3, 1), 1)[11:-1])


class Subscriber:
    """Takes what comes, and has it to give back."""

    queue, prefetch = "mail", 1

    def __init__(self) -> None:
        self.held: deque[RabbitDelivery] = deque()

    def deliver(self, delivery: Any) -> None:
        self.held.append(delivery)

    def take_unfinished(self) -> list[RabbitDelivery]:
        rest = list(self.held)
        self.held.clear()
        return rest


def deliver(channel: LaneChannel, tag: int) -> None:
    method = frame.marshal(commands.Basic.Deliver(TAG, tag, False, "", "q"), 1)[11:-1]
    channel.on_deliver(method, b"", b"body")


def opened(link: Link, events: Events) -> LaneChannel:
    listener: Any = SimpleNamespace(on_channel_lost=None)
    return LaneChannel(link, Channel(), listener, lambda delivery, reason: None, events)  # type: ignore[arg-type]  # the parts that are used


async def test_a_consumer_begins_and_ends_in_one_write_each_that_ends_with_the_look() -> None:
    link, subscriber = Link(), Subscriber()
    channel = opened(link, Events())

    assert await channel.attach(LANE, subscriber, TAG, {}) == QueueDepth(3, 1)
    assert await channel.cancel_and_return(TAG, LANE, subscriber.take_unfinished, is_clean=True) == QueueDepth(3, 1)

    assert link.written == [
        wire.prefetch(1, 1) + wire.consume(1, LANE, TAG, {}) + wire.look(1, LANE),
        wire.cancel(1, TAG) + wire.look(1, LANE),
    ]


async def test_what_ends_with_the_consumer_is_acked_behind_its_cancel() -> None:
    link, subscriber = Link(), Subscriber()
    channel = opened(link, Events())
    await channel.attach(LANE, subscriber, TAG, {})
    for tag in (1, 2):
        deliver(channel, tag)
    subscriber.held.popleft().ack()

    def take_unfinished() -> list[RabbitDelivery]:
        for held in subscriber.take_unfinished():
            held.ack()
        return []

    await channel.cancel_and_return(TAG, LANE, take_unfinished, is_clean=True)

    assert link.written[1] == (
        wire.ack(1, 1, multiple=True) + wire.cancel(1, TAG) + wire.ack(1, 2, multiple=True) + wire.look(1, LANE)
    )


async def test_what_comes_behind_the_first_answer_is_given_back_before_the_look_that_counts() -> None:
    # The queue had sent it before the cancel, but the channel's process had the look in its mailbox before.
    link, subscriber = Link(), Subscriber()
    channel = opened(link, Events())
    await channel.attach(LANE, subscriber, TAG, {})
    looks: list[int] = []

    def brings() -> None:
        looks.append(1)
        if len(looks) == 2:
            deliver(channel, 1)

    link.before_the_answer = brings

    assert await channel.cancel_and_return(TAG, LANE, subscriber.take_unfinished, is_clean=False) == QueueDepth(3, 1)

    assert link.written[1:] == [
        wire.cancel(1, TAG) + wire.look(1, LANE),
        wire.look(1, LANE),
        wire.requeue(1, 1) + wire.look(1, LANE),
    ]


@pytest.mark.parametrize("ends", [False, True], ids=["it lives", "its end comes with the answer"])
async def test_what_crosses_the_cancel_is_given_back_by_us_or_by_the_end_of_the_channel(ends: bool) -> None:
    events, link, subscriber = Events(), Link(), Subscriber()
    lost = EventRecorder(events, AckLost)
    channel = opened(link, events)
    await channel.attach(LANE, subscriber, TAG, {})

    def crosses() -> None:
        link.before_the_answer = lambda: None
        deliver(channel, 1)
        if ends:
            channel.on_closing("closed")

    link.before_the_answer = crosses
    if ends:
        with pytest.raises(TransportError):
            await channel.cancel_and_return(TAG, LANE, subscriber.take_unfinished, is_clean=False)
        assert len(link.written) == 2, "what attached it, and the cancel"
    else:
        assert await channel.cancel_and_return(TAG, LANE, subscriber.take_unfinished, is_clean=False) == QueueDepth(
            3, 1
        )
        assert link.written[2] == wire.requeue(1, 1) + wire.look(1, LANE), "what came meanwhile"
    assert lost.of(AckLost) == []


async def test_a_channel_that_goes_answers_no_look() -> None:
    link, subscriber = Link(), Subscriber()
    channel = opened(link, Events())
    channel.consumers = 1
    link.before_the_answer = lambda: channel.on_closing("NOT_FOUND - no queue")

    with pytest.raises(TransportError, match="NOT_FOUND"):
        await channel.attach(LANE, subscriber, TAG, {})
    with pytest.raises(TransportError, match="gone"):
        await channel.attach(LANE, subscriber, TAG, {})
    assert channel.consumers == 0, "its place is given back"
