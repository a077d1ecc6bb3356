"""The race of publishes and deletions of lanes on RabbitMQ, with two workers that serve and both publish."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import timedelta

import pytest

from jq_actors.clock import SystemClock
from jq_actors.transport.lane import Fairness, Lane
from jq_actors.transport.port import Delivery, NotPublished, Outgoing, Published, Transport
from jq_actors.transport.rabbitmq import ending, lanes
from jq_actors.transport.rabbitmq.access import Access
from tests.conformance.lanes import grouped
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


async def test_no_publish_is_lost_to_the_deletion_of_its_lane(
    rabbitmq: Server, amqp_namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lanes are deleted as soon as they are drained; each publish comes when the one before was handled, or later."""
    monkeypatch.setattr(ending, "SETTLED", timedelta())
    monkeypatch.setattr(ending, "STEP", 0.0)
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
