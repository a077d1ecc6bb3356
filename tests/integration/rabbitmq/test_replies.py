"""A reply counts only if it is understood: a queue that cannot answer now is not one that does not exist."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from jq_actors.errors import TransportError
from jq_actors.events import ConsumerConfirmed, ConsumerLost, QueueBroken
from jq_actors.transport.port import Published, QueueDepth
from jq_actors.transport.rabbitmq.amqp.client import says_missing
from tests.conformance.transport.transports import AckingHand, Hand, jobs
from tests.support.rabbitmq import PrivateRabbitMQ

from .rabbit import Opened, opened

NAME = 'rabbit_misc:r(<<"/">>, queue, <<"replies.mail">>)'
SET_STATE = f"""begin
    Set = fun(Queue) -> amqqueue:set_state(Queue, %s) end,
    case erlang:function_exported(rabbit_db_queue, update, 2) of
        true -> rabbit_db_queue:update({NAME}, Set);
        false -> rabbit_misc:execute_mnesia_transaction(fun() -> rabbit_amqqueue:update({NAME}, Set) end)
    end,
    ok
end"""
SUSPEND, RESUME = (f"sys:{what}(whereis('%2F_leaderless.mail'))" for what in ("suspend", "resume"))


@pytest.fixture
async def broker(private_rabbitmq: PrivateRabbitMQ) -> AsyncIterator[Opened]:
    """With two messages in a queue whose record says ``crashed``: it answers 404, as if its node were down."""
    soon = timedelta(milliseconds=500)
    async with opened(private_rabbitmq.url, "replies", reconcile_interval=soon) as broker:
        assert await broker.transport.publish(jobs("a b", "mail")) == [Published()] * 2
        private_rabbitmq.evaluate(SET_STATE % "crashed")
        yield broker
        private_rabbitmq.evaluate(SET_STATE % "live")
        await broker.transport.purge("mail")


@pytest.mark.broker
async def test_what_cannot_answer_is_not_taken_for_missing(broker: Opened, private_rabbitmq: PrivateRabbitMQ) -> None:
    async with opened(private_rabbitmq.url, "replies") as looking:
        with pytest.raises(TransportError, match="NOT_FOUND"):
            await looking.transport.depth("mail")
        with pytest.raises(TransportError, match="NOT_FOUND"):
            await looking.transport.purge("mail")

        assert await looking.transport.depth("nowhere") is None
        assert await looking.transport.purge("nowhere") == 0
        private_rabbitmq.evaluate(SET_STATE % "live")
        assert await looking.transport.depth("mail") == QueueDepth(2, 0)


@pytest.mark.broker
async def test_it_is_waited_for_and_not_called_broken(broker: Opened, private_rabbitmq: PrivateRabbitMQ) -> None:
    hand = AckingHand()
    broker.transport.want("mail", 5, hand)
    [lost] = await broker.told.wait_for(ConsumerLost)
    assert "NOT_FOUND" in lost.reason
    assert broker.transport.health.missing == ("mail",)

    private_rabbitmq.evaluate(SET_STATE % "live")

    await broker.told.wait_for(ConsumerConfirmed)
    await hand.has(2)
    assert hand.bodies == ["a", "b"]
    assert broker.told.of(QueueBroken) == []


@pytest.mark.broker
async def test_a_quorum_queue_without_a_leader_is_not_taken_for_empty(private_rabbitmq: PrivateRabbitMQ) -> None:
    """It answers that nothing is in it, and that nobody consumes it."""
    async with opened(private_rabbitmq.url, "leaderless", queue_type="quorum") as broker:
        broker.transport.want("mail", 1, Hand())
        await broker.confirmed("mail")
        assert await broker.transport.publish(jobs("a b c", "mail")) == [Published()] * 3
        private_rabbitmq.evaluate(SUSPEND)
        try:
            with pytest.raises(TransportError, match="no leader"):
                await broker.transport.depth("mail")
        finally:
            private_rabbitmq.evaluate(RESUME)
        assert await broker.transport.depth("mail") == QueueDepth(2, 1)
    private_rabbitmq.delete_queue("leaderless.mail")


@pytest.mark.parametrize(
    ("reply", "is_missing"),
    [
        ("NOT_FOUND - no queue 'jq.mail' in vhost '/'", True),
        ("NOT_FOUND - no exchange 'jq.delay@due' in vhost '/'", True),
        ("NOT_FOUND - home node 'rabbit@one' of durable queue 'jq.mail' in vhost '/' is down or inaccessible", False),
        ("NOT_FOUND - queue 'jq.mail' in vhost '/' process is stopped by supervisor", False),
        ("NOT_FOUND - queue 'no queue ' in vhost '/' has crashed and failed to restart", False),
        ("NOT_FOUND - failed to perform operation on queue 'jq.mail' in vhost '/' due to timeout", False),
        ("RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'no queue' in vhost '/'", False),
    ],
)
def test_which_replies_say_that_there_is_none(reply: str, is_missing: bool) -> None:
    """As RabbitMQ 3.10, 4.0 and 4.3 word them."""
    assert says_missing(reply) is is_missing
