"""A queue of the broker that does not answer holds up no other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest

from jq_actors.events import BrokerDisconnected
from jq_actors.transport.port import NotPublished, Published, PublishUnknown
from tests.conformance.transport.transports import job, jobs
from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.waiting import eventually

from .rabbit import opened

pytestmark = pytest.mark.broker

CLASSIC = 'amqqueue:get_pid(element(2, rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"%s">>))))'
QUORUM = "whereis('%%2F_%s')"

PROCESS = {"classic": CLASSIC, "quorum": QUORUM}

MORE_THAN_ITS_CREDIT = 2000
"""Messages; RabbitMQ reads 400 more of a connection when one of its channels is held up."""


@contextmanager
def not_answering(server: PrivateRabbitMQ, queue_type: str, queue: str) -> Iterator[None]:
    """As if its disk were busy, or its leader gone."""
    process = PROCESS[queue_type] % queue
    server.evaluate(f"sys:suspend({process})")
    try:
        yield
    finally:
        server.evaluate(f"sys:resume({process})")


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_a_window_full_of_messages_for_one_queue_leaves_the_others_theirs(
    private_rabbitmq: PrivateRabbitMQ, queue_type: str
) -> None:
    namespace = f"stuck{queue_type}"
    async with opened(private_rabbitmq.url, namespace, queue_type=queue_type) as broker:
        publish = broker.transport.publish
        assert await publish([*jobs("a", "stuck"), *jobs("b", "free")]) == [Published()] * 2
        with not_answering(private_rabbitmq, queue_type, f"{namespace}.stuck"):
            waits = publish([job("x", "stuck") for _ in range(3000)])
            stuck = asyncio.create_task(waits)
            while not stuck.done():
                assert await publish([job("y", "free") for _ in range(100)]) == [Published()] * 100

            results = await stuck
            assert {type(result) for result in results} == {PublishUnknown, NotPublished}
            [why] = {result.reason for result in results if isinstance(result, NotPublished)}
            assert f"{namespace}.stuck" in why
            # Nor do those that nobody waits for any more.
            assert await publish([job("y", "free") for _ in range(3000)]) == [Published()] * 3000
        assert broker.told.of(BrokerDisconnected) == []
        assert await publish(jobs("again", "stuck")) == [Published()]


@pytest.mark.parametrize("queue_type", ["classic"])
async def test_a_queue_that_stops_in_full_swing_costs_the_others_at_most_one_connection(
    private_rabbitmq: PrivateRabbitMQ, queue_type: str
) -> None:
    """It has a large share then, and RabbitMQ may stop reading the connection for its sake: for ever."""
    namespace, deadline = f"swing{queue_type}", timedelta(seconds=6)
    async with opened(private_rabbitmq.url, namespace, queue_type=queue_type, confirm_timeout=deadline) as broker:
        publish, rounds = broker.transport.publish, 0
        assert await publish([*jobs("a", "stuck"), *jobs("b", "free")]) == [Published()] * 2

        async def produce() -> None:
            nonlocal rounds
            while True:
                await publish([job("x", "stuck") for _ in range(1000)])
                rounds += 1

        producers = [asyncio.create_task(produce()) for _ in range(3)]
        try:
            await eventually(lambda: rounds >= 6, 60, "the queue to be busy")
            with not_answering(private_rabbitmq, queue_type, f"{namespace}.stuck"):
                confirmed = 0
                while confirmed < MORE_THAN_ITS_CREDIT:
                    results = await publish([job("y", "free") for _ in range(100)])
                    confirmed = confirmed + 100 if set(results) == {Published()} else 0
        finally:
            for producer in producers:
                producer.cancel()
            await asyncio.wait(producers)
        assert all(f"{namespace}.stuck" in lost.reason for lost in broker.told.of(BrokerDisconnected))
        assert len(broker.told.of(BrokerDisconnected)) <= 1
