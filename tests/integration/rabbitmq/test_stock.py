"""With an aiormq that the tap does not know, all works as well, by aiormq's own reader."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from jq_actors.events import AckLost, ConsumerConfirmed, ConsumerLost, StockFrameReader
from jq_actors.transport.port import NotPublished, Outgoing, Published, PublishUnknown
from jq_actors.transport.rabbitmq.amqp import frames
from tests.conformance.transport.transports import AckingHand, Hand, job, jobs, ready_of
from tests.support.amqp import Probe
from tests.support.proxy import TcpProxy
from tests.support.rabbitmq import GivenRabbitMQ, PrivateRabbitMQ
from tests.support.waiting import eventually

from .rabbit import opened

Server = PrivateRabbitMQ | GivenRabbitMQ

pytestmark = pytest.mark.broker


@pytest.fixture(autouse=True)
def _unknown_aiormq(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "INSTALLED_AIORMQ", "99.0.0")


async def test_it_is_told_and_in_the_report(rabbitmq: Server, amqp_namespace: str) -> None:
    async with opened(rabbitmq.url, amqp_namespace) as broker:
        [told] = broker.told.of(StockFrameReader)
        report = await broker.transport.check([])

    assert "99.0.0" in told.reason
    assert any("99.0.0" in warning for warning in report.warnings)


async def test_messages_come_whole_and_in_order(rabbitmq: Server, amqp_namespace: str) -> None:
    async with opened(rabbitmq.url, amqp_namespace, publish_window=50) as broker:
        hand = AckingHand()
        broker.transport.want("mail", 100, hand)
        await broker.confirmed("mail")
        big = Outgoing(job("", "mail").job_id, 4, "mail", b"\xce" * 300_000)

        results = await broker.transport.publish([*(job(str(n), "mail") for n in range(500)), big])

        assert results == [Published()] * 501
        deliveries = await hand.has(501)
        assert [delivery.body for delivery in deliveries[:500]] == [str(n).encode() for n in range(500)]
        assert (deliveries[500].body, deliveries[500].dispatch) == (big.body, 4)
    with Probe(rabbitmq.url) as probe:
        assert probe.depth(f"{amqp_namespace}.mail") == (0, 0)


async def test_endings_arrive_before_the_close(rabbitmq: Server, amqp_namespace: str) -> None:
    async with opened(rabbitmq.url, amqp_namespace) as broker:
        hand = Hand()
        broker.transport.want("mail", 100, hand)
        await broker.transport.publish([job(str(n), "mail") for n in range(100)])
        for number, delivery in enumerate(await hand.has(100)):
            if number % 2:
                delivery.ack()
    with Probe(rabbitmq.url) as probe:
        assert probe.depth(f"{amqp_namespace}.mail") == (50, 0)


async def test_missing_queues_and_refusals(rabbitmq: Server, amqp_namespace: str) -> None:
    async with opened(rabbitmq.url, amqp_namespace) as broker:
        assert await broker.transport.publish(jobs("a b", "mail")) == [Published()] * 2
        assert await ready_of(broker.transport, "mail") == 2
    async with opened(rabbitmq.url, "amq") as broker:
        [refused] = await broker.transport.publish(jobs("a", "mail"))
    assert isinstance(refused, NotPublished)
    assert "ACCESS_REFUSED" in refused.reason


async def test_a_deleted_queue_and_a_cut_connection(
    rabbitmq: Server, amqp_namespace: str, tcp_proxy: Callable[[str], TcpProxy]
) -> None:
    proxy = tcp_proxy(rabbitmq.url)
    async with opened(proxy.url(rabbitmq.url), amqp_namespace) as broker:
        hand = Hand()
        broker.transport.want("mail", 5, hand)
        await broker.told.wait_for(ConsumerConfirmed)
        with Probe(rabbitmq.url) as probe:
            probe.delete(f"{amqp_namespace}.mail")
        await broker.told.wait_for(ConsumerConfirmed, count=2)
        await broker.transport.publish(jobs("a", "mail"))
        [late] = await hand.has(1)

        proxy.cut()
        [_, again] = await hand.has(2, 20)
        late.ack()
        again.ack()

        assert len(broker.told.of(ConsumerLost)) == 1
        assert broker.told.of(AckLost) == [AckLost("mail")]
        await broker.confirmed("mail")
        assert await broker.transport.publish(jobs("b", "mail")) == [Published()]
        await hand.has(3)


async def test_a_mute_broker_leaves_it_unknown(
    rabbitmq: Server, amqp_namespace: str, tcp_proxy: Callable[[str], TcpProxy]
) -> None:
    proxy = tcp_proxy(rabbitmq.url)
    deadline = timedelta(milliseconds=300)
    async with opened(proxy.url(rabbitmq.url), amqp_namespace, confirm_timeout=deadline) as broker:
        await broker.transport.publish(jobs("before", "mail"))
        proxy.freeze()
        [unknown] = await broker.transport.publish(jobs("during", "mail"))
        proxy.thaw()

        assert isinstance(unknown, PublishUnknown)
        await eventually(lambda: ready_of(broker.transport, "mail"), why="the broker to answer")
        assert await broker.transport.publish(jobs("after", "mail")) == [Published()]
