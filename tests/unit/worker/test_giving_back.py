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
    """The part of aiormq's channel that is used."""

    number = 1
    is_closed = False

    def __init__(self) -> None:
        self.on_consumer_cancel_callbacks: set[Any] = set()
        self.closing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.consumers: dict[str, Any] = {}


class Link:
    """The part of a link that is used; it answers each look, with what the test says before the answer."""

    is_lost = True

    def __init__(self) -> None:
        self.tap = self
        self.written: list[bytes] = []
        self.before_the_answer: Callable[[], None] = lambda: None
        self._sinks: list[Any] = []

    def attach(self, number: int, sink: Any) -> None:
        self._sinks.append(sink)

    def write(self, frames: bytes) -> None:
        self.written.append(frames)
        if frames.endswith(wire.look(1, LANE)):
            asyncio.get_running_loop().call_soon(self._answer)

    def _answer(self) -> None:
        self.before_the_answer()
        if self._sinks[0].is_alive:
            self._sinks[0].on_declared(frame.marshal(commands.Queue.DeclareOk(LANE, 3, 1), 1)[11:-1])


class Taker:
    """Takes what comes, and has it to give back."""

    queue, prefetch = "mail", 1

    def __init__(self) -> None:
        self.held: deque[RabbitDelivery] = deque()

    def deliver(self, delivery: Any) -> None:
        self.held.append(delivery)

    def rest(self) -> list[RabbitDelivery]:
        rest = list(self.held)
        self.held.clear()
        return rest


def opened(link: Link, events: Events) -> LaneChannel:
    told: Any = SimpleNamespace(bury=None, on_channel_lost=None)
    return LaneChannel(link, Channel(), told, events)  # type: ignore[arg-type]  # the parts that are used


async def test_a_consumer_begins_and_ends_in_one_write_each_that_ends_with_the_look() -> None:
    link, taker = Link(), Taker()
    channel = opened(link, Events())

    assert await channel.attach(LANE, taker, TAG, {}) == QueueDepth(3, 1)
    assert await channel.give_back(TAG, LANE, taker.rest, is_clean=True) == QueueDepth(3, 1)

    assert link.written == [
        wire.prefetch(1, 1) + wire.consume(1, LANE, TAG, {}) + wire.look(1, LANE),
        wire.cancel(1, TAG) + wire.look(1, LANE),
    ]


async def test_what_ends_with_the_consumer_is_acked_behind_its_cancel() -> None:
    link, taker = Link(), Taker()
    channel = opened(link, Events())
    await channel.attach(LANE, taker, TAG, {})
    for tag in (1, 2):
        channel._take(TAG.encode(), tag, False, b"", b"body")
    taker.held.popleft().ack()

    def rest() -> list[RabbitDelivery]:
        for held in taker.rest():
            held.ack()
        return []

    await channel.give_back(TAG, LANE, rest, is_clean=True)

    assert link.written[1] == (
        wire.ack(1, 1, multiple=True) + wire.cancel(1, TAG) + wire.ack(1, 2, multiple=True) + wire.look(1, LANE)
    )


async def test_what_comes_behind_the_first_answer_is_given_back_before_the_look_that_counts() -> None:
    # The queue had sent it before the cancel, but the channel's process had the look in its mailbox before.
    link, taker = Link(), Taker()
    channel = opened(link, Events())
    await channel.attach(LANE, taker, TAG, {})
    looks: list[int] = []

    def brings() -> None:
        looks.append(1)
        if len(looks) == 2:
            channel._take(TAG.encode(), 1, False, b"", b"body")

    link.before_the_answer = brings

    assert await channel.give_back(TAG, LANE, taker.rest, is_clean=False) == QueueDepth(3, 1)

    assert link.written[1:] == [
        wire.cancel(1, TAG) + wire.look(1, LANE),
        wire.look(1, LANE),
        wire.requeue(1, 1) + wire.look(1, LANE),
    ]


@pytest.mark.parametrize("ends", [False, True], ids=["it lives", "its end comes with the answer"])
async def test_what_crosses_the_cancel_is_given_back_by_us_or_by_the_end_of_the_channel(ends: bool) -> None:
    events, link, taker = Events(), Link(), Taker()
    lost = EventRecorder(events, AckLost)
    channel = opened(link, events)
    await channel.attach(LANE, taker, TAG, {})

    def crosses() -> None:
        link.before_the_answer = lambda: None
        channel._take(TAG.encode(), 1, False, b"", b"body")
        if ends:
            channel.on_closing("closed")

    link.before_the_answer = crosses
    if ends:
        with pytest.raises(TransportError):
            await channel.give_back(TAG, LANE, taker.rest, is_clean=False)
        assert len(link.written) == 2, "what attached it, and the cancel"
    else:
        assert await channel.give_back(TAG, LANE, taker.rest, is_clean=False) == QueueDepth(3, 1)
        assert link.written[2] == wire.requeue(1, 1) + wire.look(1, LANE), "what came meanwhile"
    assert lost.of(AckLost) == []


async def test_a_channel_that_goes_answers_no_look() -> None:
    link, taker = Link(), Taker()
    channel = opened(link, Events())
    channel.seats = 1
    link.before_the_answer = lambda: channel.on_closing("NOT_FOUND - no queue")

    with pytest.raises(TransportError, match="NOT_FOUND"):
        await channel.attach(LANE, taker, TAG, {})
    with pytest.raises(TransportError, match="gone"):
        await channel.attach(LANE, taker, TAG, {})
    assert channel.seats == 0, "its place is given back"
