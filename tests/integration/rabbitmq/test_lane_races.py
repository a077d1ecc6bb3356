"""The race of publishes and deletions of lanes on RabbitMQ."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import pytest

from jq_actors.clock import SystemClock
from jq_actors.config.loading import BrokerConfig
from jq_actors.model.lane import Fairness, Lane
from jq_actors.transport.port import Delivery, NotPublished, Outgoing, Published, QueueDepth, Transport
from jq_actors.transport.rabbitmq.amqp.consuming import RabbitDelivery
from jq_actors.transport.rabbitmq.amqp.link import Link, open_link
from jq_actors.transport.rabbitmq.lanes import lane_endings, lanes
from jq_actors.transport.rabbitmq.lanes.access import Access
from jq_actors.transport.rabbitmq.lanes.lane_channel import LaneChannel
from jq_actors.transport.rabbitmq.topology import delete_if_unused
from tests.conformance.transport.lanes import grouped, serve
from tests.conformance.transport.transports import Hand
from tests.support.rabbitmq import GivenRabbitMQ, PrivateRabbitMQ
from tests.support.waiting import eventually

from .rabbit import opened

Server = PrivateRabbitMQ | GivenRabbitMQ

pytestmark = pytest.mark.broker

LANES = 40
PUBLISHES = 3_000
LONGEST_PAUSE = 0.1
"""Seconds before each publish, by chance: each meets another moment."""
CLOCK = SystemClock()


class Counting:
    """Acks each delivery, and keeps what came of each lane."""

    def __init__(self) -> None:
        self.came: dict[str, list[int]] = defaultdict(list)

    def __call__(self, delivery: Delivery) -> None:
        assert delivery.lane is not None
        self.came[delivery.lane.key].append(int(delivery.body))
        delivery.ack()


@pytest.fixture
async def another(rabbitmq: Server) -> AsyncIterator[Link]:
    """The connection of another worker."""
    link = await open_link(BrokerConfig(url=rabbitmq.url), "another")
    yield link
    await link.close()


async def test_no_publish_is_lost_to_the_deletion_of_its_lane(
    rabbitmq: Server, amqp_namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers serve, and both publish, each message when the one before was handled, or later.

    Lanes are deleted as soon as they are drained.
    """
    monkeypatch.setattr(lane_endings, "SETTLED", timedelta())
    monkeypatch.setattr(lane_endings, "STEP", 0.0)
    monkeypatch.setattr(lanes, "TICK", 0.002)
    hand, deleted = Counting(), _count_deletions(monkeypatch)
    async with opened(rabbitmq.url, amqp_namespace) as one, opened(rabbitmq.url, amqp_namespace) as other:
        for worker in (one, other):
            worker.transport.serve_lanes("mail", LANES, Fairness(idle=timedelta()), hand)

        await asyncio.gather(
            *(_publish((one, other)[number % 2].transport, f"{number}", hand) for number in range(LANES))
        )

    numbers = list(range(PUBLISHES // LANES))
    assert {key: list(dict.fromkeys(came)) for key, came in hand.came.items()} == {
        f"{number}": numbers for number in range(LANES)
    }
    assert deleted[0] > 100


def _count_deletions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    deleted, delete = [0], Access.delete

    async def counted(self: Access, lane: Lane) -> bool:
        gone = await delete(self, lane)
        deleted[0] += gone
        return gone

    monkeypatch.setattr(Access, "delete", counted)
    return deleted


async def _publish(transport: Transport, key: str, hand: Counting) -> None:
    for number in range(PUBLISHES // LANES):
        await asyncio.sleep(LONGEST_PAUSE * CLOCK.random())
        await _publish_surely(transport, grouped(f"{number}", Lane("mail", key)))
        await eventually(lambda: number in hand.came[key], 30, f"{number} of {key}")  # noqa: B023 - awaited here


async def _publish_surely(transport: Transport, message: list[Outgoing]) -> None:
    [result] = await transport.publish(message)
    while isinstance(result, NotPublished):  # its lane was deleted again and again
        [result] = await transport.publish(message)
    assert result == Published()


async def test_no_lane_is_deleted_while_something_is_on_its_way_back(
    rabbitmq: Server, amqp_namespace: str, another: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker has the cancel, and not yet what was in hand: then the lane has no message, and its worker is gone."""
    hand, deleted = Hand(), _deleting_after_each_cancel(monkeypatch, another)
    async with opened(rabbitmq.url, amqp_namespace) as worker:
        await worker.transport.publish(grouped("a b c", Lane("mail", "g")))
        serve(worker.transport, "mail", hand)
        [first] = await hand.has(1)

        first.requeue()

        for count in (2, 3, 4):
            (await hand.has(count))[-1].ack()
    assert hand.bodies == ["a", "a", "b", "c"]
    assert deleted[0] is False


def _deleting_after_each_cancel(monkeypatch: pytest.MonkeyPatch, another: Link) -> list[bool]:
    deleted, settle = list[bool](), LaneChannel._settle

    async def late(self: LaneChannel, held: Sequence[RabbitDelivery], source: str, before: bytes = b"") -> QueueDepth:
        if held and before:
            assert (await settle(self, (), source, before)).ready == 0
            deleted.append(await delete_if_unused(another, source))
            before = b""
        return await settle(self, held, source, before)

    monkeypatch.setattr(LaneChannel, "_settle", late)
    return deleted
