"""What the server allows on a connection: how many channels, and how large a frame."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from aio_pika.abc import AbstractChannel
from aio_pika.tools import OneShotCallback

from jq_actors.config.loading import BrokerConfig
from jq_actors.events import BrokerDisconnected, Events
from jq_actors.model.lane import Lane
from jq_actors.transport.port import Outgoing, Published
from jq_actors.transport.rabbitmq.amqp.channel_numbers import ChannelsExhaustedError
from jq_actors.transport.rabbitmq.amqp.client import RefusedError, ask
from jq_actors.transport.rabbitmq.amqp.consuming import ConsumingChannel, RabbitDelivery, Subscriber
from jq_actors.transport.rabbitmq.amqp.link import Link, open_link
from jq_actors.transport.rabbitmq.lanes import lane_channel
from jq_actors.transport.rabbitmq.lanes.lane_channel import LaneChannel
from jq_actors.transport.rabbitmq.topology import Queue, declare
from tests.conformance.transport.lanes import WorkingHand, grouped, serve
from tests.conformance.transport.transports import AckingHand, Hand, job
from tests.support.rabbitmq import GivenRabbitMQ, PrivateRabbitMQ
from tests.support.waiting import eventually

from .rabbit import opened

Server = PrivateRabbitMQ | GivenRabbitMQ

pytestmark = pytest.mark.broker

CHANNELS = 12


@contextmanager
def allowing(server: PrivateRabbitMQ, what: str, value: int, default: int) -> Iterator[None]:
    """The server agrees with new connections on ``value``; afterwards on its ``default``."""
    server.evaluate(f"application:set_env(rabbit, {what}, {value})")
    try:
        yield
    finally:
        server.evaluate(f"application:set_env(rabbit, {what}, {default})")


@pytest.fixture
def few_channels(private_rabbitmq: PrivateRabbitMQ) -> Iterator[PrivateRabbitMQ]:
    with allowing(private_rabbitmq, "channel_max", CHANNELS, 2047):
        yield private_rabbitmq


@pytest.fixture
async def link(few_channels: PrivateRabbitMQ) -> AsyncIterator[Link]:
    opened_link = await open_link(BrokerConfig(url=few_channels.url), "test")
    yield opened_link
    await opened_link.close()


# -- channels ---------------------------------------------------------------------------------------------


async def test_one_channel_too_many_is_an_error_and_not_the_end_of_the_connection(link: Link) -> None:
    channels = [await link.open_channel() for _ in range(CHANNELS)]

    with pytest.raises(ChannelsExhaustedError, match="channel_max"):
        await link.open_channel()
    await channels[3].close()

    assert (await link.open_channel()).number == channels[3].number
    assert not link.is_lost


async def test_channels_opened_at_the_same_time_are_counted(link: Link) -> None:
    answers = await asyncio.gather(*(link.open_channel() for _ in range(CHANNELS + 3)), return_exceptions=True)

    assert sum(isinstance(answer, ChannelsExhaustedError) for answer in answers) == 3
    assert len({answer.number for answer in answers if not isinstance(answer, BaseException)}) == CHANNELS
    assert not link.is_lost


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_where_few_channels_are_allowed_queues_and_lanes_share_them(
    few_channels: PrivateRabbitMQ, amqp_namespace: str, queue_type: str
) -> None:
    lanes, queues = [Lane("mail", f"g{number}") for number in range(2 * CHANNELS)], [f"q{n}" for n in range(CHANNELS)]
    hand, groups = AckingHand(), WorkingHand(0)
    async with opened(few_channels.url, amqp_namespace, queue_type=queue_type) as broker:
        for queue in queues:
            broker.transport.want(queue, 5, hand)
        serve(broker.transport, "mail", groups, slots=len(lanes))
        await broker.confirmed(*queues)

        await broker.transport.publish([job("x", queue, delay=0.1) for queue in queues])
        batch = [message for lane in lanes for message in grouped("a b", lane)]
        assert await broker.transport.publish(batch) == [Published()] * len(batch)

        await hand.has(len(queues), 30)
        await groups.has(len(batch), 30)
        assert broker.transport.generation == 1
        assert broker.told.of(BrokerDisconnected) == []


async def test_a_refused_request_leaves_nothing_behind_on_the_connection(link: Link) -> None:
    """aio-pika would keep a callback for each channel that the broker has closed, as long as the connection."""
    before = _callbacks()
    for _ in range(20):
        with pytest.raises(RefusedError):
            async with link.throw_away_channel() as channel:
                await ask(channel.declare_queue("nowhere", passive=True))

    await eventually(lambda: _callbacks() <= before + 1, why="the callbacks to go")


def _callbacks() -> int:
    gc.collect()
    return sum(isinstance(found, OneShotCallback) for found in gc.get_objects())


# -- a number that is used again --------------------------------------------------------------------------


class Untold:
    """Nothing happens to its channels but what the test does."""

    def on_cancelled(self, subscriber: Subscriber) -> None:
        raise AssertionError(subscriber)

    def on_channel_lost(self, channel: ConsumingChannel, subscribers: Collection[Subscriber], reason: str) -> None:
        pass


def _never(delivery: RabbitDelivery, reason: str) -> None:
    raise AssertionError(reason)


class OneByOne:
    """Takes deliveries."""

    queue, prefetch = "q", 1

    def __init__(self) -> None:
        self.came = asyncio.Event()

    def deliver(self, delivery: RabbitDelivery) -> None:
        self.came.set()


async def test_who_opens_a_channel_with_a_number_that_was_just_freed_is_heard(
    link: Link, few_channels: PrivateRabbitMQ, amqp_namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has closed the one before notices later than the broker that it is closed."""
    name, notices = f"{amqp_namespace}.q", asyncio.Event()

    async def notice_late(request: Awaitable[Any]) -> None:
        await ask(request)
        await notices.wait()

    await declare(link, Queue(name))
    async with opened(few_channels.url, amqp_namespace) as other:
        await other.transport.publish([job("x", "q")])
    [*_, last] = [await link.open_channel() for _ in range(CHANNELS - 1)]
    before, subscriber = LaneChannel(link, last, Untold(), _never, Events()), OneByOne()
    monkeypatch.setattr(lane_channel, "ask", notice_late)
    closing = asyncio.create_task(before.close())

    after = LaneChannel(link, await _as_soon_as_possible(link), Untold(), _never, Events())
    notices.set()
    await closing

    async with asyncio.timeout(10):
        assert (await after.attach(name, subscriber, "tag", {})).consumers == 1
        await subscriber.came.wait()


async def _as_soon_as_possible(link: Link) -> AbstractChannel:
    while True:
        try:
            return await link.open_channel()
        except ChannelsExhaustedError:
            await asyncio.sleep(0)


# -- frames -----------------------------------------------------------------------------------------------


async def test_without_a_largest_frame_bodies_arrive_whole(
    private_rabbitmq: PrivateRabbitMQ, amqp_namespace: str
) -> None:
    """AMQP writes 0 for «no limit»."""
    bodies = [b"", b"small", bytes(n % 251 for n in range(700_000)), b"after"]
    with allowing(private_rabbitmq, "frame_max", 0, 131_072):
        async with opened(private_rabbitmq.url, amqp_namespace) as broker:
            hand = Hand()
            broker.transport.want("mail", 10, hand)

            batch = [Outgoing(job("", "mail").job_id, 1, "mail", body) for body in bodies]
            assert await broker.transport.publish(batch) == [Published()] * len(bodies)

            whole = [delivery.body == body for delivery, body in zip(await hand.has(4), bodies, strict=True)]
            assert whole == [True] * 4
