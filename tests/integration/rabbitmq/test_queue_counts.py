"""Counts of many queues at once over one channel: each question gets its answer, whatever becomes of the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from jq_actors.config.loading import BrokerConfig
from jq_actors.errors import TransportError
from jq_actors.transport.port import QueueDepth
from jq_actors.transport.rabbitmq.amqp.client import RefusedError
from jq_actors.transport.rabbitmq.amqp.link import Link, open_link
from jq_actors.transport.rabbitmq.amqp.queue_counts import MOST_UNANSWERED
from jq_actors.transport.rabbitmq.topology import Queue, declare, look
from tests.support.amqp import Probe
from tests.support.proxy import TcpProxy
from tests.support.rabbitmq import GivenRabbitMQ, PrivateRabbitMQ

Server = PrivateRabbitMQ | GivenRabbitMQ

pytestmark = pytest.mark.broker

QUEUES = 3 * MOST_UNANSWERED


@pytest.fixture
def proxy(rabbitmq: Server, tcp_proxy: Callable[[str], TcpProxy]) -> TcpProxy:
    return tcp_proxy(rabbitmq.url)


@pytest.fixture
async def link(rabbitmq: Server, amqp_namespace: str, proxy: TcpProxy) -> AsyncIterator[Link]:
    opened = await open_link(BrokerConfig(url=proxy.url(rabbitmq.url), namespace=amqp_namespace), "test")
    yield opened
    await opened.close()


async def test_each_look_gets_its_own_answer_between_those_that_are_refused(
    rabbitmq: Server, amqp_namespace: str, link: Link
) -> None:
    names = [f"{amqp_namespace}.{number}" for number in range(QUEUES)]
    there = [number % 7 != 3 for number in range(QUEUES)]
    with Probe(rabbitmq.url) as probe:
        for number, name in enumerate(names):
            if there[number]:
                await declare(link, Queue(name))
            for _ in range(number % 3 if there[number] else 0):
                probe.publish(name, b"x")

    seen = await asyncio.gather(*(look(link, name) for name in names))

    assert seen == [QueueDepth(number % 3, 0) if there[number] else None for number in range(QUEUES)]


async def test_who_does_not_wait_for_his_answer_leaves_the_others_theirs(amqp_namespace: str, link: Link) -> None:
    names = [f"{amqp_namespace}.{number}" for number in range(10)]
    for name in names[::2]:
        await declare(link, Queue(name))
    looks = [asyncio.ensure_future(look(link, name)) for name in names]
    await asyncio.sleep(0)
    for given_up in looks[3:5]:
        given_up.cancel()

    answers = await asyncio.gather(*looks, return_exceptions=True)

    assert [answers[number] for number in (0, 1, 2, 5, 6)] == [
        QueueDepth(0, 0),
        None,
        QueueDepth(0, 0),
        None,
        QueueDepth(0, 0),
    ]
    assert all(isinstance(answer, asyncio.CancelledError) for answer in answers[3:5])


async def test_any_other_refusal_is_told_in_full(rabbitmq: Server, amqp_namespace: str, link: Link) -> None:
    name = f"{amqp_namespace}.exclusive"
    other = await open_link(BrokerConfig(url=rabbitmq.url, namespace=amqp_namespace), "other")
    try:
        async with other.throw_away_channel() as channel:
            await channel.declare_queue(name, exclusive=True)
        with pytest.raises(RefusedError) as refused:
            await look(link, name)
    finally:
        await other.close()

    assert refused.value.code == 405


async def test_a_lost_connection_ends_all_looks(amqp_namespace: str, link: Link, proxy: TcpProxy) -> None:
    await declare(link, Queue(amqp_namespace))
    assert await look(link, amqp_namespace) == QueueDepth(0, 0)
    proxy.freeze()
    looks = [asyncio.ensure_future(look(link, amqp_namespace)) for _ in range(QUEUES)]
    await asyncio.sleep(0)
    proxy.cut()

    answers = await asyncio.gather(*looks, return_exceptions=True)

    assert {type(answer) for answer in answers} == {TransportError}
