"""Publishing to RabbitMQ: what was told of each message is true, whatever happens to the connection."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from itertools import count
from typing import Any

import pytest

from jq_actors.events import BrokerConnected, ConsumerLost, PublisherBlocked
from jq_actors.transport.port import NotPublished, Outgoing, Published, PublishUnknown
from jq_actors.transport.rabbitmq.topology import Queue, declare
from tests.conformance.transport.transports import AckingHand, Hand, job, jobs, ready_of
from tests.support.amqp import Probe
from tests.support.proxy import TcpProxy
from tests.support.rabbitmq import GivenRabbitMQ, PrivateRabbitMQ
from tests.support.waiting import eventually

from .rabbit import opened

Server = PrivateRabbitMQ | GivenRabbitMQ
Proxied = Callable[[str], TcpProxy]

pytestmark = pytest.mark.broker


async def test_a_message_is_persistent_and_names_its_job(rabbitmq: Server, amqp_namespace: str) -> None:
    message = job("x", "mail", dispatch=3, priority=7)
    async with opened(rabbitmq.url, amqp_namespace) as broker:
        await broker.transport.publish([message, message])

    with Probe(rabbitmq.url) as probe:
        found = [probe.get(f"{amqp_namespace}.mail") for _ in range(2)]
    properties = [got.properties for got in found if got is not None]
    assert [p.headers for p in properties] == [{"jq-job": message.job_id}] * 2
    assert [(p.delivery_mode, p.priority) for p in properties] == [(2, 7)] * 2
    ids = [str(p.message_id) for p in properties]
    assert all(message_id.startswith(f"{message.job_id}.3.") for message_id in ids)
    assert len(set(ids)) == 2


async def test_the_same_dispatch_published_twice_at_once_has_two_answers(rabbitmq: Server, amqp_namespace: str) -> None:
    """A16: both are unroutable; aiormq, which looks them up by message id, reports one of them as a success."""
    message = job("twin", "missing")
    async with opened(rabbitmq.url, amqp_namespace) as broker:
        results = await asyncio.gather(*(broker.transport.publish([message]) for _ in range(20)))

        assert results == [[Published()]] * 20
        assert await ready_of(broker.transport, "missing") == 20


async def test_a_queue_that_cannot_be_made_is_a_clear_refusal_for_each(rabbitmq: Server) -> None:
    async with opened(rabbitmq.url, "amq") as broker:  # the broker reserves names that begin so
        message = job("x", "reserved")
        results = await asyncio.gather(*(broker.transport.publish([message, message]) for _ in range(3)))

    for result in [result for batch in results for result in batch]:
        assert isinstance(result, NotPublished)
        assert "ACCESS_REFUSED" in result.reason


async def test_a_queue_that_was_deleted_is_made_again_and_nothing_is_sent_twice(
    rabbitmq: Server, amqp_namespace: str
) -> None:
    """A15."""
    async with opened(rabbitmq.url, amqp_namespace) as broker:
        await broker.transport.publish(jobs("lost with its queue", "mail"))
        with Probe(rabbitmq.url) as probe:
            probe.delete(f"{amqp_namespace}.mail")

        results = await broker.transport.publish([job(str(n), "mail") for n in range(1000)])

        assert results == [Published()] * 1000
        hand = AckingHand()
        broker.transport.want("mail", 100, hand)
        await hand.has(1000)
        assert hand.bodies == [str(n) for n in range(1000)]


async def test_a_small_window_is_no_limit_to_a_batch(rabbitmq: Server, amqp_namespace: str) -> None:
    async with opened(rabbitmq.url, amqp_namespace, publish_window=3) as broker:
        results = await broker.transport.publish([job(str(n), "mail") for n in range(200)])

        assert results == [Published()] * 200
        assert await ready_of(broker.transport, "mail") == 200


@pytest.mark.parametrize("size", [131064, 131065, 131072, 700_000])
async def test_a_body_of_several_frames(rabbitmq: Server, amqp_namespace: str, size: int) -> None:
    body = bytes(n % 251 for n in range(size))
    message = job("", "mail")
    async with opened(rabbitmq.url, amqp_namespace) as broker:
        hand = AckingHand()
        broker.transport.want("mail", 10, hand)

        results = await broker.transport.publish([Outgoing(message.job_id, 1, "mail", body)] * 3)

        assert results == [Published()] * 3
        assert [delivery.body == body for delivery in await hand.has(3)] == [True] * 3


async def test_a_mute_broker_leaves_it_unknown_within_the_deadline(
    rabbitmq: Server, amqp_namespace: str, tcp_proxy: Proxied
) -> None:
    """A13: the message may be there, so it is neither a success nor a failure."""
    proxy = tcp_proxy(rabbitmq.url)
    deadline = timedelta(milliseconds=300)
    async with opened(proxy.url(rabbitmq.url), amqp_namespace, confirm_timeout=deadline) as broker:
        await broker.transport.publish(jobs("before", "mail"))
        proxy.freeze()
        unknown = await broker.transport.publish(jobs("during1 during2", "mail"))
        proxy.thaw()
        after = await broker.transport.publish(jobs("after", "mail"))

        assert [type(result) for result in unknown] == [PublishUnknown] * 2
        assert after == [Published()]
        assert await ready_of(broker.transport, "mail") == 4


async def test_beyond_the_window_a_mute_broker_surely_has_nothing(
    rabbitmq: Server, amqp_namespace: str, tcp_proxy: Proxied
) -> None:
    proxy = tcp_proxy(rabbitmq.url)
    settings: dict[str, Any] = {"confirm_timeout": timedelta(milliseconds=300), "publish_window": 2}
    async with opened(proxy.url(rabbitmq.url), amqp_namespace, **settings) as broker:
        await broker.transport.publish(jobs("before", "mail"))
        proxy.freeze()
        results = await broker.transport.publish(jobs("a b c d", "mail"))
        proxy.thaw()

        assert [type(result) for result in results] == [PublishUnknown] * 2 + [NotPublished] * 2
        await eventually(lambda: ready_of(broker.transport, "mail"), why="what was held back")
        assert await ready_of(broker.transport, "mail") == 3


async def test_a_cut_connection_loses_nothing_that_was_confirmed(
    rabbitmq: Server, amqp_namespace: str, tcp_proxy: Proxied
) -> None:
    """A14: what was told of each of many messages, over several cuts, agrees with what is in the queue."""
    proxy, numbers = tcp_proxy(rabbitmq.url), count()
    told: dict[str, type] = {}

    async with opened(proxy.url(rabbitmq.url), amqp_namespace) as broker:
        transport, enough = broker.transport, asyncio.Event()

        async def produce() -> None:
            while not enough.is_set():
                batch = [job(str(next(numbers)), "mail") for _ in range(50)]
                results = await transport.publish(batch)
                told.update({m.body.decode(): type(r) for m, r in zip(batch, results, strict=True)})

        producers = [asyncio.create_task(produce()) for _ in range(4)]
        for cut in range(1, 6):
            await eventually(lambda cut=cut: len(told) > 400 * cut, 30, "some messages")  # type: ignore[misc]
            proxy.cut()
        enough.set()
        await asyncio.gather(*producers)

        hand = AckingHand()
        transport.want("mail", 500, hand)
        confirmed = {body for body, result in told.items() if result is Published}
        await eventually(lambda: confirmed <= {*hand.bodies}, 20, "all that was confirmed")
        assert PublishUnknown in told.values()
        refused = {body for body, result in told.items() if result is NotPublished}
        assert not refused & {*hand.bodies}


async def test_a_cancelled_publish_closes_no_channel(rabbitmq: Server, amqp_namespace: str) -> None:
    """A12: at 200 points, with queues that exist, that are missing, and with delays that need a topology."""
    async with opened(rabbitmq.url, amqp_namespace) as broker:
        hand = Hand()
        broker.transport.want("mail", 1000, hand)
        await broker.confirmed("mail")
        for point in range(200):
            batch = [job("cancelled", "mail"), job("cancelled", f"new{point}"), job("cancelled", "later", delay=60)]
            publishing = asyncio.create_task(broker.transport.publish(batch[: 1 + point % 3]))
            for _ in range(point // 3):
                await asyncio.sleep(0)
            publishing.cancel()
            await asyncio.wait([publishing])

        assert await broker.transport.publish(jobs("last", "mail")) == [Published()]
        await eventually(lambda: "last" in hand.bodies, why="the last one")
        for delivery in hand.deliveries:
            delivery.ack()
        assert broker.told.of(ConsumerLost) == []
        assert len(broker.told.of(BrokerConnected)) == 2
        assert broker.transport.generation == 1


async def test_an_alarm_blocks_publishers_only(private_rabbitmq: PrivateRabbitMQ) -> None:
    """A17: told at once; acks and looks go on meanwhile; nothing is sent that would only wait."""
    deadline = timedelta(milliseconds=500)
    async with opened(private_rabbitmq.url, "alarm", confirm_timeout=deadline) as broker:
        hand = Hand()
        broker.transport.want("mail", 10, hand)
        await broker.transport.publish(jobs("a b", "mail"))
        first, _ = await hand.has(2)
        private_rabbitmq.memory_alarm(True)
        [caught] = await broker.transport.publish(jobs("caught", "mail"))
        await broker.told.wait_for(PublisherBlocked, lambda event: event.blocked)
        [refused] = await broker.transport.publish(jobs("refused", "mail"))
        assert broker.transport.health.publisher_blocked
        assert broker.transport.capacity("mail") == 0
        first.ack()
        depth = await broker.transport.depth("mail")

        private_rabbitmq.memory_alarm(False)
        await broker.told.wait_for(PublisherBlocked, lambda event: not event.blocked)
        [after] = await broker.transport.publish(jobs("after", "mail"))
        await eventually(lambda: "after" in hand.bodies, why="what came after the alarm")

    assert isinstance(caught, PublishUnknown)
    assert isinstance(refused, NotPublished)
    assert "blocks publishers" in refused.reason
    assert after == Published()
    assert depth is not None
    assert depth.consumers == 1
    assert hand.bodies == ["a", "b", "caught", "after"]


async def test_room_is_told_when_the_broker_takes_messages_again(
    rabbitmq: Server, amqp_namespace: str, tcp_proxy: Proxied
) -> None:
    proxy = tcp_proxy(rabbitmq.url)
    async with opened(proxy.url(rabbitmq.url), amqp_namespace) as broker:
        room = asyncio.Event()
        broker.transport.on_room = room.set
        assert broker.transport.capacity("mail") > 0
        proxy.refuse()
        proxy.cut()
        await eventually(lambda: broker.transport.capacity("mail") == 0, why="the loss to be seen")

        proxy.accept()

        await asyncio.wait_for(room.wait(), 20)
        assert broker.transport.capacity("mail") > 0


async def test_ten_thousand_declares_of_a_queue_leave_nothing_behind(rabbitmq: Server, amqp_namespace: str) -> None:
    """A11."""
    async with opened(rabbitmq.url, amqp_namespace) as broker:
        link = broker.transport._publisher.connection.link
        assert link is not None

        async def declare_often(times: int) -> None:
            for _ in range(times):
                await declare(link, Queue(f"{amqp_namespace}.flat"))

        async def objects_after(times: int) -> Counter[str]:
            await asyncio.gather(*(declare_often(times // 4) for _ in range(4)))
            gc.collect()
            return Counter(type(thing).__name__ for thing in gc.get_objects())

        before = await objects_after(400)
        grown = await objects_after(10_000) - before

        assert {name: number for name, number in grown.items() if number > 100} == {}


async def test_what_the_broker_refuses_is_sent_again_while_there_is_time(rabbitmq: Server, amqp_namespace: str) -> None:
    """A full queue refuses (nack), as a quorum queue does while it has no leader."""
    queue = f"{amqp_namespace}.mail"
    with Probe(rabbitmq.url) as probe:
        probe.declare(queue, {"x-max-length": 2, "x-overflow": "reject-publish"})
        async with opened(rabbitmq.url, amqp_namespace) as broker:
            publishing = asyncio.create_task(broker.transport.publish(jobs("a b c", "mail")))
            await eventually(lambda: probe.depth(queue) == (2, 0), why="a full queue")
            probe.get(queue)

            assert await publishing == [Published()] * 3
            [refused] = await broker.transport.publish(jobs("d", "mail"))

        assert isinstance(refused, NotPublished)
        assert "nack" in refused.reason
        assert probe.depth(queue) == (2, 0)
