"""Delays that RabbitMQ itself measures: on time, whatever else waits, and over its own end (A28, A30)."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from jq_actors.clock import SystemClock
from jq_actors.transport.port import Delivery, NotPublished, Outgoing, Published, PublishUnknown
from jq_actors.transport.rabbitmq.amqp.client import ask
from tests.conformance.transport.transports import AckingHand, job, jobs
from tests.support.rabbitmq import GivenRabbitMQ, PrivateRabbitMQ
from tests.support.waiting import eventually

from .rabbit import CONNECT, opened

Server = PrivateRabbitMQ | GivenRabbitMQ

clock = SystemClock()

pytestmark = pytest.mark.broker


class Watch:
    """Takes deliveries, and notes how long after the start of the watch each came."""

    def __init__(self) -> None:
        self.came: dict[str, float] = {}
        self._start = clock.monotonic()

    def __call__(self, delivery: Delivery) -> None:
        self.came[delivery.body.decode()] = clock.monotonic() - self._start
        delivery.ack()


def delayed(seconds: float, queue: str = "mail") -> Outgoing:
    return job(f"{seconds}", queue, delay=seconds)


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_each_comes_in_its_time_and_not_before(rabbitmq: Server, amqp_namespace: str, queue_type: str) -> None:
    """Behind an hour and a year; sent from the longest to the shortest."""
    seconds = [365 * 86400.0, 3600.0, 2.5, 1.0, 0.7, 0.1]
    async with opened(rabbitmq.url, amqp_namespace, queue_type=queue_type) as broker:
        warm_up = AckingHand()
        broker.transport.want("warm", 1, warm_up)
        await broker.transport.publish([delayed(0.1, "warm")])
        await warm_up.has(1)
        watch = Watch()
        broker.transport.want("mail", 10, watch)

        results = await broker.transport.publish([delayed(delay) for delay in seconds])

        assert results == [Published()] * len(seconds)
        await eventually(lambda: len(watch.came) >= 4, 20, "the short ones")
    assert {*watch.came} == {"2.5", "1.0", "0.7", "0.1"}
    for delay, came in watch.came.items():
        # What a quorum queue takes for each hop is in the documentation of the module.
        assert 0 <= came - float(delay) < (0.5 if queue_type == "classic" else 2.0)


async def test_a_delay_goes_on_while_the_node_is_down(private_rabbitmq: PrivateRabbitMQ) -> None:
    async with opened(private_rabbitmq.url, "night", confirm_timeout=timedelta(seconds=20)) as broker:
        await broker.transport.publish([delayed(1.0), delayed(8.0), delayed(3600.0)])
        watch = Watch()
        await asyncio.to_thread(private_rabbitmq.restart)
        assert await broker.transport.wait_connected(CONNECT)

        broker.transport.want("mail", 10, watch)

        await eventually(lambda: len(watch.came) == 2, 20, "both short ones")
    assert {*watch.came} == {"1.0", "8.0"}


async def test_a_name_that_ends_like_another_gets_only_its_own(rabbitmq: Server, amqp_namespace: str) -> None:
    async with opened(rabbitmq.url, amqp_namespace) as broker:
        short, long = AckingHand(), AckingHand()
        broker.transport.want("mail", 10, short)
        broker.transport.want("eu.mail", 10, long)

        await broker.transport.publish([job("eu", "eu.mail", delay=0.2), job("all", "mail", delay=0.3)])
        await short.has(1)
        await long.has(1)

    assert (short.bodies, long.bodies) == (["all"], ["eu"])


async def test_a_delay_that_is_too_long_is_refused_alone(rabbitmq: Server, amqp_namespace: str) -> None:
    years = 3 * 365 * 86400.0
    async with opened(rabbitmq.url, amqp_namespace) as broker:
        batch = [job("now", "mail"), delayed(years), delayed(60)]
        now, too_long, later = await broker.transport.publish(batch)

    assert (now, later) == (Published(), Published())
    assert isinstance(too_long, NotPublished)
    assert "1095 days" in too_long.reason


async def test_what_finds_no_queue_in_the_end_is_in_the_dead_queue(
    private_rabbitmq: PrivateRabbitMQ,
) -> None:
    async with opened(private_rabbitmq.url, "gone") as broker:
        await broker.transport.publish([delayed(0.5)])
        private_rabbitmq.delete_queue("gone.mail")

        await eventually(lambda: private_rabbitmq.depth("gone.dead") == (1, 0), 10, "the dead letter")


@pytest.mark.parametrize("deleted", [["delay@3"], ["delay@due"], ["delay@complete"]])
async def test_timers_that_somebody_deleted_are_made_again(
    rabbitmq: Server, amqp_namespace: str, deleted: list[str]
) -> None:
    async with opened(rabbitmq.url, amqp_namespace) as broker:
        watch = Watch()
        broker.transport.want("mail", 10, watch)
        await broker.transport.publish([delayed(0.1)])
        link = broker.transport._publisher.connection.link
        assert link is not None
        async with link.throw_away_channel() as channel:
            for name in deleted:
                await ask(channel.exchange_delete(f"{amqp_namespace}.{name}"))

        # A publish to an exchange that is missing costs the channel; what was on it is unknown, and told so.
        [first] = await broker.transport.publish([delayed(0.8)])
        [second] = await broker.transport.publish([delayed(0.9)])

        assert type(first) in (Published, PublishUnknown)
        assert second == Published()
        await eventually(lambda: "0.9" in watch.came, why="the second")
        assert ("0.8" in watch.came) == (first == Published())


async def test_the_consumer_holds_none_of_them(rabbitmq: Server, amqp_namespace: str) -> None:
    """A28: what is due in thirty days lies in the broker, neither in this process nor among the unacked."""
    month = 30 * 86400.0
    async with opened(rabbitmq.url, amqp_namespace) as broker:
        hand = AckingHand()
        broker.transport.want("mail", 1, hand)
        results = await broker.transport.publish([delayed(month) for _ in range(2000)] + jobs("now", "mail"))

        assert results == [Published()] * 2001
        await hand.has(1)
        depth = await broker.transport.depth("mail")
        assert depth is not None
        assert depth.ready == 0
    assert hand.bodies == ["now"]
