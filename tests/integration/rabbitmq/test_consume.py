"""Consuming from RabbitMQ: what is wanted is consumed, whatever is done to queues and channels."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from pamqp.commands import Basic

from jq_actors.events import AckLost, ConsumerConfirmed, ConsumerLost, QueueBroken
from jq_actors.transport.port import Delivery, Published
from jq_actors.transport.rabbitmq import transport as transport_module
from tests.conformance.transport.transports import AckingHand, Hand, job, jobs
from tests.support.amqp import Probe
from tests.support.proxy import TcpProxy
from tests.support.rabbitmq import GivenRabbitMQ, PrivateRabbitMQ
from tests.support.waiting import eventually

from .rabbit import Opened, opened

Server = PrivateRabbitMQ | GivenRabbitMQ
Proxied = Callable[[str], TcpProxy]

pytestmark = pytest.mark.broker


async def test_a_queue_deleted_under_its_consumer_is_made_and_consumed_again(
    rabbitmq: Server, amqp_namespace: str
) -> None:
    """A8: without a new connection, and without a message for it."""
    async with opened(rabbitmq.url, amqp_namespace) as broker:
        hand, other = AckingHand(), AckingHand()
        broker.transport.want("mail", 5, hand)
        broker.transport.want("other", 5, other)
        await broker.told.wait_for(ConsumerConfirmed, count=2)

        with Probe(rabbitmq.url) as probe:
            probe.delete(f"{amqp_namespace}.mail")

        [lost] = await broker.told.wait_for(ConsumerLost)
        assert lost.queue == "mail"
        await broker.told.wait_for(ConsumerConfirmed, count=3)
        await broker.transport.publish([*jobs("a", "mail"), *jobs("b", "other")])
        await hand.has(1)
        await other.has(1)
        assert broker.transport.generation == 1


async def test_one_queue_of_a_hundred_with_wrong_arguments_harms_no_other(
    private_rabbitmq: PrivateRabbitMQ,
) -> None:
    """A10, A24: it is told, left out, and consumed once somebody has mended it; all with few channels."""
    wrong = "hundred.q50"
    with Probe(private_rabbitmq.url) as probe:
        probe.declare(wrong, {"x-max-length": 3})
    interval = timedelta(milliseconds=500)
    async with opened(private_rabbitmq.url, "hundred", reconcile_interval=interval) as broker:
        hand = AckingHand()
        for number in range(100):
            broker.transport.want(f"q{number}", 5, hand)
        await broker.told.wait_for(ConsumerConfirmed, count=99, timeout=60)
        [broken] = await broker.told.wait_for(QueueBroken)
        channels = private_rabbitmq.ctl("list_channels", "pid").splitlines()
        health = broker.transport.health

        assert broken.queue == "q50"
        assert "x-max-length" in broken.reason or "inequivalent" in broken.reason
        assert {*health.broken} == {"q50"}
        assert health.missing == ()
        assert len(channels) <= 20
        await broker.transport.publish([job("x", f"q{number}") for number in range(100) if number != 50])
        await hand.has(99)

        with Probe(private_rabbitmq.url) as probe:
            probe.delete(wrong)
        await broker.told.wait_for(ConsumerConfirmed, lambda event: event.queue == "q50")
        assert broker.transport.health.broken == {}
        assert len(broker.told.of(QueueBroken)) == 1
        assert broker.told.of(ConsumerLost) == []


async def test_a_queue_that_must_not_be_consumed_is_told_and_harms_no_neighbour(
    private_rabbitmq: PrivateRabbitMQ,
) -> None:
    """The declare is allowed, the consume is not (403), and that closes a channel which others share."""
    url = _user_without_reading(private_rabbitmq, r"^secret\.q7$")
    async with opened(url, "secret") as broker:
        hand = AckingHand()
        for number in range(30):
            broker.transport.want(f"q{number}", 5, hand)
        [broken] = await broker.told.wait_for(QueueBroken)
        await broker.confirmed(*(f"q{number}" for number in range(30) if number != 7))

        assert broken.queue == "q7"
        assert "ACCESS_REFUSED" in broken.reason
        await broker.transport.publish([job("x", f"q{number}") for number in range(30) if number != 7])
        await hand.has(29)


def _user_without_reading(server: PrivateRabbitMQ, forbidden: str) -> str:
    server.ctl("add_user", "reader", "secret")
    server.ctl("set_permissions", "reader", ".*", ".*", f"^(?!{forbidden.strip('^$')}$).*$")
    return server.url.replace("guest:guest", "reader:secret")


async def test_a_late_ack_is_counted_and_not_sent_to_the_new_channel(
    rabbitmq: Server, amqp_namespace: str, tcp_proxy: Proxied
) -> None:
    """A6: the old tag is that of another delivery now, or of none, which would close the channel."""
    proxy = tcp_proxy(rabbitmq.url)
    async with opened(proxy.url(rabbitmq.url), amqp_namespace) as broker:
        hand = Hand()
        broker.transport.want("mail", 5, hand)
        await broker.transport.publish(jobs("a b", "mail"))
        old = await hand.has(2)
        proxy.cut()
        _, _, a, b = await hand.has(4, 20)

        for delivery in old:
            delivery.ack()
            delivery.requeue()
        assert broker.told.of(AckLost) == [AckLost("mail")] * 2
        a.ack()
        await broker.transport.publish(jobs("c", "mail"))
        await hand.has(5)

        assert [d.body for d in hand.deliveries] == [b"a", b"b", b"a", b"b", b"c"]
        assert (a.redelivered, b.redelivered) == (True, True)
        assert broker.told.of(ConsumerLost) == []
    with Probe(rabbitmq.url) as probe:
        assert probe.depth(f"{amqp_namespace}.mail") == (2, 0)


async def test_a_delivery_held_for_too_long_costs_its_own_queue_only(
    private_rabbitmq: PrivateRabbitMQ,
) -> None:
    """A1: RabbitMQ takes the channel away with all that is unacked on it; other queues have other channels."""
    private_rabbitmq.consumer_timeout(1000)
    async with opened(private_rabbitmq.url, "slow") as broker:
        slow, other = Hand(), Hand()
        broker.transport.want("slow", 1, slow)
        broker.transport.want("other", 1, other)
        await broker.confirmed("slow", "other")
        await broker.transport.publish(jobs("long", "slow"))
        [first] = await slow.has(1)

        [lost] = await broker.told.wait_for(ConsumerLost)
        await slow.has(2)
        first.ack()
        await broker.transport.publish(jobs("quick", "other"))
        [quick] = await other.has(1)

        assert lost.queue == "slow"
        assert "timed out" in lost.reason
        assert not quick.redelivered
        assert broker.told.of(AckLost) == [AckLost("slow")]
        assert broker.transport.generation == 1


async def test_a_second_ending_of_a_delivery_harms_nothing(rabbitmq: Server, amqp_namespace: str) -> None:
    async with opened(rabbitmq.url, amqp_namespace) as broker:
        hand = Hand()
        broker.transport.want("mail", 5, hand)
        await broker.transport.publish(jobs("a b", "mail"))
        first, second = await hand.has(2)

        for end in (first.ack, first.ack, first.requeue, second.requeue, second.ack):
            end()

        again = (await hand.has(3))[2]
        again.ack()
        assert again.body == b"b"
        assert broker.told.of(ConsumerLost) == []


async def _has_dead_letter(broker: Opened) -> None:
    async def is_there() -> bool:
        depth = await broker.transport.depth("dead")
        return depth is not None and depth.ready == 1

    await eventually(is_there, 20, "the dead letter")


async def test_what_is_buried_keeps_its_headers_and_its_identity(rabbitmq: Server, amqp_namespace: str) -> None:
    properties = Basic.Properties(message_id="order 66", headers={"tenant": "acme", "tries": 3}, delivery_mode=2)
    async with opened(rabbitmq.url, amqp_namespace) as broker:
        hand = Hand()
        broker.transport.want("mail", 5, hand)
        await broker.confirmed("mail")
        with Probe(rabbitmq.url) as probe:
            probe.publish(f"{amqp_namespace}.mail", b"\x00 no command", properties)
        [delivery] = await hand.has(1)

        delivery.bury("not JSON: " + "x" * 5000)

        await _has_dead_letter(broker)
    with Probe(rabbitmq.url) as probe:
        dead = probe.get(f"{amqp_namespace}.dead")
        assert probe.depth(f"{amqp_namespace}.mail") == (0, 0)
    assert dead is not None
    assert dead.body == b"\x00 no command"
    headers = dict(dead.properties.headers or {})
    assert str(headers.pop("jq-reason")).startswith("not JSON: xxx")
    assert headers == {"tenant": "acme", "tries": 3, "jq-queue": "mail"}
    assert str(dead.properties.message_id).startswith("order 66.")
    assert dead.properties.delivery_mode == 2


async def test_what_cannot_be_buried_is_given_back(
    private_rabbitmq: PrivateRabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_module, "BURY_AGAIN", 0.1)
    async with opened(private_rabbitmq.url, "bury", confirm_timeout=timedelta(milliseconds=300)) as broker:
        hand = Hand()
        broker.transport.want("mail", 1, hand)
        await broker.transport.publish(jobs("a", "mail"))
        [delivery] = await hand.has(1)
        private_rabbitmq.memory_alarm(True)

        delivery.bury("while the broker takes nothing")

        again = (await hand.has(2))[1]
        private_rabbitmq.memory_alarm(False)
        assert (again.body, again.redelivered) == (b"a", True)


async def test_a_poisonous_message_of_a_quorum_queue_becomes_a_dead_letter(
    rabbitmq: Server, amqp_namespace: str
) -> None:
    """A19: the broker's delivery limit never drops a message.

    RabbitMQ 4.3 counts deliveries that were lost with their connections, not those that were given back.
    """
    options: dict[str, Any] = {"queue_type": "quorum", "delivery_limit": 2}
    async with opened(rabbitmq.url, amqp_namespace, **options) as broker:
        assert await broker.transport.publish(jobs("poison", "mail")) == [Published()]
    for _ in range(3):
        async with opened(rabbitmq.url, amqp_namespace, **options) as victim:
            hand = Hand()
            victim.transport.want("mail", 5, hand)
            await hand.has(1)
    async with opened(rabbitmq.url, amqp_namespace, **options) as broker:
        await _has_dead_letter(broker)

    with Probe(rabbitmq.url) as probe:
        dead = probe.get(f"{amqp_namespace}.dead")
    assert dead is not None
    assert dead.body == b"poison"


async def test_many_queues_stop_together_and_their_deliveries_stay_valid(rabbitmq: Server, amqp_namespace: str) -> None:
    async with opened(rabbitmq.url, amqp_namespace) as broker:
        hand = Hand()
        queues = [f"q{number}" for number in range(24)]
        for queue in queues:
            broker.transport.want(queue, 2, hand)
        await broker.confirmed(*queues)
        await broker.transport.publish([job("x", queue) for queue in queues])
        deliveries = await hand.has(24)

        await broker.transport.stop_intake()
        await broker.transport.publish([job("late", queue) for queue in queues])
        for delivery in deliveries:
            delivery.ack()

        assert broker.transport.health.missing == ()
        depths = [await broker.transport.depth(queue) for queue in queues]
        assert [(depth.ready, depth.consumers) for depth in depths if depth is not None] == [(1, 0)] * 24
    assert len(hand.deliveries) == 24


async def test_deliveries_run_outside_of_the_silence_for_aiormq(
    rabbitmq: Server, amqp_namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What aiormq logs for others stays visible, also when an actor uses it that was started by a delivery."""
    seen = asyncio.Event()

    def log(delivery: Delivery) -> None:
        logging.getLogger("aiormq.connection").warning("of another connection")
        delivery.ack()
        seen.set()

    async with opened(rabbitmq.url, amqp_namespace) as broker:
        broker.transport.want("mail", 1, log)
        await broker.transport.publish(jobs("a", "mail"))
        await asyncio.wait_for(seen.wait(), 10)

    assert "of another connection" in caplog.messages
