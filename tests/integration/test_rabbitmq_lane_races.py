"""Races over lanes on RabbitMQ: the publish that meets the deletion of its lane, or the end of its service."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import timedelta

import pytest

from jq_actors.transport.port import Delivery, Fairness, Lane, Published, Transport
from jq_actors.transport.rabbitmq import lanes, service
from jq_actors.transport.rabbitmq.access import Access
from tests.conformance.lanes import grouped
from tests.support.rabbitmq import GivenRabbitMQ, PrivateRabbitMQ
from tests.support.waiting import eventually

from .rabbit import opened

Server = PrivateRabbitMQ | GivenRabbitMQ

pytestmark = pytest.mark.broker

LANES = 40
PUBLISHES = 3_000


class Counting:
    """Acks each delivery, and keeps what came of each lane."""

    def __init__(self) -> None:
        self.came: dict[str, list[int]] = defaultdict(list)
        self.count = 0

    def __call__(self, delivery: Delivery) -> None:
        assert delivery.lane is not None
        self.came[delivery.lane.key].append(int(delivery.body))
        self.count += 1
        delivery.ack()


async def test_no_publish_is_lost_to_the_deletion_of_its_lane(
    rabbitmq: Server, amqp_namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lanes are left and deleted in the moment in which they are drained, while two processes publish."""
    monkeypatch.setattr(service, "LINGER", 0.0)
    monkeypatch.setattr(lanes, "TICK", 0.002)
    hand, deleted = Counting(), _count_deletions(monkeypatch)
    async with opened(rabbitmq.url, amqp_namespace) as one, opened(rabbitmq.url, amqp_namespace) as other:
        one.transport.serve_lanes("mail", LANES, Fairness(idle=timedelta()), hand)

        await asyncio.gather(
            *(_publish(one.transport, f"a{number}", hand) for number in range(LANES // 2)),
            *(_publish(other.transport, f"b{number}", hand) for number in range(LANES // 2)),
        )

    assert {key: list(dict.fromkeys(numbers)) for key, numbers in hand.came.items()} == {
        key: list(range(PUBLISHES // LANES)) for key in hand.came
    }
    assert len(hand.came) == LANES
    assert deleted[0] > 10


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
        assert await transport.publish(grouped(f"{number}", Lane("mail", key))) == [Published()]
        await eventually(lambda: number in hand.came[key], 20, f"{number} of {key}")  # noqa: B023 - awaited here
