"""The private node does what fault tests rely on."""

from __future__ import annotations

import pytest
from pamqp import commands

from tests.support.amqp import Probe, RefusedError
from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.waiting import eventually_sync

pytestmark = pytest.mark.broker


def test_a_killed_node_keeps_durable_messages_and_a_wiped_one_nothing(
    private_rabbitmq: PrivateRabbitMQ, amqp_namespace: str
) -> None:
    with Probe(private_rabbitmq.url) as probe:
        probe.declare(amqp_namespace)
        probe.publish(amqp_namespace, b"body")
    private_rabbitmq.write_down()
    private_rabbitmq.kill()
    with pytest.raises(ConnectionError):
        Probe(private_rabbitmq.url)
    with pytest.raises(RuntimeError):
        private_rabbitmq.evaluate("ok")
    private_rabbitmq.start()
    # By AMQP, for that is open only when all queues are recovered; `rabbitmqctl` may look before.
    assert private_rabbitmq.depth(amqp_namespace) == (1, 0)
    private_rabbitmq.stop()
    private_rabbitmq.wipe()
    private_rabbitmq.start()
    assert private_rabbitmq.depth(amqp_namespace) is None


def test_a_delivery_that_is_unacked_for_too_long_closes_its_channel(
    private_rabbitmq: PrivateRabbitMQ, amqp_namespace: str
) -> None:
    private_rabbitmq.consumer_timeout(500)
    with Probe(private_rabbitmq.url) as probe:
        probe.declare(amqp_namespace)
        probe.publish(amqp_namespace, b"body")
        probe.consume(amqp_namespace)
        with pytest.raises(RefusedError, match="delivery acknowledgement") as refused:
            probe.wait_closed()
    assert refused.value.code == 406
    eventually_sync(lambda: private_rabbitmq.depth(amqp_namespace) == (1, 0), 5, "the delivery to be returned")


def test_a_memory_alarm_blocks_publishers_until_it_is_cleared(private_rabbitmq: PrivateRabbitMQ) -> None:
    private_rabbitmq.memory_alarm(True)
    assert "memory" in private_rabbitmq.ctl("eval", "rabbit_alarm:get_alarms().")
    private_rabbitmq.heal()
    assert "memory" not in private_rabbitmq.ctl("eval", "rabbit_alarm:get_alarms().")


def test_connections_closed_by_the_server_say_so(private_rabbitmq: PrivateRabbitMQ) -> None:
    with Probe(private_rabbitmq.url) as probe:
        private_rabbitmq.close_connections("because")
        with pytest.raises(RefusedError, match="because") as refused:
            probe.wait_closed()
    assert refused.value.code == 320


def test_a_paused_node_accepts_and_does_not_answer(private_rabbitmq: PrivateRabbitMQ) -> None:
    private_rabbitmq.pause()
    with pytest.raises(TimeoutError):
        Probe(private_rabbitmq.url, timeout=0.3)
    private_rabbitmq.unpause()
    Probe(private_rabbitmq.url).close()


def test_a_probe_takes_what_it_published_in_order_and_whole(
    private_rabbitmq: PrivateRabbitMQ, amqp_namespace: str
) -> None:
    bodies = [b"first", b"", b"x" * 300_000]
    with Probe(private_rabbitmq.url) as probe:
        probe.declare(amqp_namespace)
        for body in bodies:
            probe.publish(amqp_namespace, body, commands.Basic.Properties(message_id="m", delivery_mode=2))
        taken = [probe.get(amqp_namespace) for _ in bodies]
        assert [got.body for got in taken if got] == bodies
        assert probe.get(amqp_namespace) is None


def test_queues_are_listed_with_what_is_in_them(private_rabbitmq: PrivateRabbitMQ, amqp_namespace: str) -> None:
    classic, quorum = f"{amqp_namespace}.classic", f"{amqp_namespace}.quorum"
    with Probe(private_rabbitmq.url) as probe, Probe(private_rabbitmq.url) as consumer:
        probe.declare(classic)
        probe.declare(quorum, {"x-queue-type": "quorum"})
        for queue in (classic, classic, quorum):
            probe.publish(queue, b"body")
        consumer.consume(classic)
        eventually_sync(lambda: probe.depth(classic) == (1, 1), 5, "an unacked message, which counts too")
        eventually_sync(
            lambda: private_rabbitmq.queue_depths(amqp_namespace) == {classic: 2, quorum: 1}, 10, "the numbers"
        )
        assert private_rabbitmq.queue_consumers(amqp_namespace) == {classic: 1, quorum: 0}
    assert private_rabbitmq.queue_depths("no queue of this name") == {}


def test_an_expression_that_fails_is_no_answer(private_rabbitmq: PrivateRabbitMQ) -> None:
    assert private_rabbitmq.evaluate('io:format("a line~n")') == "a line"
    for wrong in ("exit(meant)", "no_such_module:call()", "not Erlang", "error_is_no_ok"):
        with pytest.raises(RuntimeError):
            private_rabbitmq.evaluate(wrong)


def test_a_refused_probe_is_of_use_again(private_rabbitmq: PrivateRabbitMQ, amqp_namespace: str) -> None:
    with Probe(private_rabbitmq.url) as probe:
        probe.declare(amqp_namespace)
        with pytest.raises(RefusedError, match="inequivalent arg"):
            probe.declare(amqp_namespace, {"x-max-priority": 3})
        assert probe.depth(amqp_namespace) == (0, 0)
        private_rabbitmq.delete_queue(amqp_namespace)
        assert probe.depth(amqp_namespace) is None
