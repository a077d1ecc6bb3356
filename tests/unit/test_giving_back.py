"""Giving back what a consumer has, while its channel goes: the broker has it all back, and no ending is lost."""

from __future__ import annotations

import asyncio
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from jq_actors.errors import TransportError
from jq_actors.events import AckLost, Events
from jq_actors.transport.rabbitmq.consuming import ConsumingChannel, RabbitDelivery
from tests.support.recorder import EventRecorder

TAG = "lane.1"


class Channel:
    """The part of aiormq's channel that is used; its answer to a `basic.qos` brings what the test says."""

    number = 1
    is_closed = False

    def __init__(self) -> None:
        self.on_consumer_cancel_callbacks: set[Any] = set()
        self.closing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.consumers: dict[str, Any] = {}
        self.with_the_answer: Any = lambda: None

    async def basic_qos(self, *, prefetch_count: int) -> None:
        self.with_the_answer()

    async def basic_consume(self, *_: Any, **__: Any) -> None: ...


class Link:
    """The part of a link that is used."""

    is_lost = True

    def __init__(self) -> None:
        self.tap = self
        self.written: list[bytes] = []

    def attach(self, number: int, sink: Any) -> None: ...

    def write(self, frames: bytes) -> None:
        self.written.append(frames)


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


@pytest.mark.parametrize("ends", [False, True], ids=["it lives", "its end comes with the answer"])
async def test_what_crosses_the_cancel_is_given_back_by_us_or_by_the_end_of_the_channel(ends: bool) -> None:
    events, channel, link, taker = Events(), Channel(), Link(), Taker()
    lost = EventRecorder(events, AckLost)
    told: Any = SimpleNamespace(bury=None, on_channel_lost=None)
    consuming = ConsumingChannel(link, channel, told, events)  # type: ignore[arg-type]  # the parts that are used
    await consuming.consume("jq.g.mail.a", taker, TAG, {})

    def crosses() -> None:
        channel.with_the_answer = lambda: None
        consuming._take(TAG.encode(), 1, False, b"", b"body")
        if ends:
            consuming.on_closing("closed")

    channel.with_the_answer = crosses
    if ends:
        with pytest.raises(TransportError):
            await consuming.give_back(TAG, taker.rest)
        assert len(link.written) == 1, "the cancel"
    else:
        assert await consuming.give_back(TAG, taker.rest)
        assert len(link.written) == 2, "the cancel, and what came meanwhile"
    assert lost.of(AckLost) == []
