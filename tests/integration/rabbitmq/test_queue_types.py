"""Each queue says its type, whatever the virtual host's default; and queues of earlier versions go on as they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from jq_actors.config.loading import BrokerConfig
from jq_actors.events import QueueBroken
from jq_actors.model.lane import Lane
from jq_actors.transport.port import Published, QueueDepth
from jq_actors.transport.rabbitmq.topology import Topology
from tests.conformance.transport.lanes import WorkingHand, grouped, serve
from tests.conformance.transport.transports import AckingHand, job, jobs
from tests.support.amqp import Probe
from tests.support.rabbitmq import GivenRabbitMQ, PrivateRabbitMQ

from .rabbit import Opened, opened

Server = PrivateRabbitMQ | GivenRabbitMQ

pytestmark = pytest.mark.broker

OF_OLD: dict[str, dict[str, Any]] = {
    "mail": {},
    "important": {"x-max-priority": 10},
    "dead": {},
    "lobby.mail": {},
    "g.mail.g": {"x-single-active-consumer": True},
    "delay@0": {"x-message-ttl": 100, "x-dead-letter-exchange": "{namespace}.delay@due"},
}
"""Queues as they were declared before they said their type."""


def declare_as_of_old(url: str, namespace: str, *names: str) -> None:
    with Probe(url) as probe:
        for name in names or OF_OLD:
            arguments = {
                key: value.format(namespace=namespace) if isinstance(value, str) else value
                for key, value in OF_OLD[name].items()
            }
            probe.declare(f"{namespace}.{name}", arguments)


async def works(broker: Opened) -> None:
    """A job now, one later, one with a priority, one of a group, and one that is buried."""
    hand, groups = AckingHand(), WorkingHand(0)
    broker.transport.want("mail", 5, hand)
    broker.transport.want("important", 5, lambda delivery: delivery.bury("no"))
    serve(broker.transport, "mail", groups)
    batch = [job("now", "mail"), job("later", "mail", delay=0.1), job("bury", "important", priority=9)]
    batch += grouped("grouped", Lane("mail", "g"))
    assert await broker.transport.publish(batch) == [Published()] * 4
    await hand.has(2)
    await groups.has(1)
    await broker.confirmed("mail", "important", "lobby.mail")
    assert broker.told.of(QueueBroken) == []


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_each_queue_says_its_type(queue_type: str) -> None:
    config = BrokerConfig(url="amqp://h/", queue_type=queue_type, priority_queues=["important"])  # type: ignore[arg-type]
    topology = Topology(config)
    queues = [topology.dead, topology.jobs("mail"), topology.jobs("important"), topology.lobby("mail")]
    queues += [topology.lane(Lane("mail", "g")), topology.lane(Lane("mail", "g", seats=2)), topology.timer("t", 1, "x")]

    assert {queue.arguments["x-queue-type"] for queue in queues} == {queue_type}


async def test_queues_that_were_declared_without_a_type_go_on(rabbitmq: Server, amqp_namespace: str) -> None:
    declare_as_of_old(rabbitmq.url, amqp_namespace)
    with Probe(rabbitmq.url) as probe:
        probe.publish(f"{amqp_namespace}.mail", b"from before")

    async with opened(rabbitmq.url, amqp_namespace, priority_queues=("important",)) as broker:
        await works(broker)
        report = await broker.transport.check(["mail", "important"])

    assert report.problems == ()


# -- where the virtual host says otherwise ----------------------------------------------------------------


@pytest.fixture
def quorum_by_default(private_rabbitmq: PrivateRabbitMQ) -> Iterator[str]:
    """The address of a virtual host in which a queue that does not say its type is a quorum queue."""
    vhost = "by-default"
    private_rabbitmq.ctl("add_vhost", vhost, "--default-queue-type", "quorum")
    private_rabbitmq.ctl("set_permissions", "-p", vhost, "guest", ".*", ".*", ".*")
    yield f"{private_rabbitmq.url.removesuffix('/')}/{vhost}"
    private_rabbitmq.ctl("delete_vhost", vhost)


async def test_the_default_of_the_virtual_host_does_not_matter(
    quorum_by_default: str, private_rabbitmq: PrivateRabbitMQ
) -> None:
    async with opened(quorum_by_default, "jq", priority_queues=("important",)) as broker:
        await works(broker)

    listed = private_rabbitmq.ctl("list_queues", "-p", "by-default", "--silent", "type").split()
    assert set(listed) == {"classic"}


async def test_queues_that_the_virtual_host_made_quorum_queues_before_go_on(quorum_by_default: str) -> None:
    declare_as_of_old(quorum_by_default, "jq", "mail", "dead", "lobby.mail", "g.mail.g")
    with Probe(quorum_by_default) as probe:
        probe.publish("jq.mail", b"from before")

    async with opened(quorum_by_default, "jq", priority_queues=("important",)) as broker:
        assert await broker.transport.depth("mail") == QueueDepth(1, 0)
        await works(broker)
        report = await broker.transport.check(["mail", "important"])

    assert report.problems == ()


async def test_a_queue_of_another_type_is_still_told_and_left_alone(rabbitmq: Server, amqp_namespace: str) -> None:
    with Probe(rabbitmq.url) as probe:
        probe.declare(f"{amqp_namespace}.mail", {"x-queue-type": "quorum"})

    async with opened(rabbitmq.url, amqp_namespace) as broker:
        broker.transport.want("mail", 5, AckingHand())
        [broken] = await broker.told.wait_for(QueueBroken)
        assert await broker.transport.publish(jobs("a", "mail")) == [Published()]  # it is there, and takes it

    assert "x-queue-type" in broken.reason
