"""Lanes in the hands of the transport suite: messages for them, looks at them, and a hand that works."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from dataclasses import replace

from jq_actors.model.lane import Fairness, Lane
from jq_actors.transport.embedded.transport import EmbeddedTransport
from jq_actors.transport.port import Deliver, Delivery, Outgoing, QueueDepth, Transport
from jq_actors.transport.rabbitmq import RabbitTransport
from jq_actors.transport.rabbitmq.topology import look
from tests.support.waiting import eventually

from .transports import Hand, job


class WorkingHand(Hand):
    """Works on each delivery for a moment, then acks it. Bodies are ``group:number``."""

    def __init__(self, seconds: float = 0.002) -> None:
        super().__init__()
        self._seconds = seconds
        self._working: Counter[str] = Counter()
        self.most_of_group: Counter[str] = Counter()
        """How many deliveries of each group it had at once."""
        self.most = 0
        """How many it had at once in all."""

    def __call__(self, delivery: Delivery) -> None:
        super().__call__(delivery)
        group = _group_of(delivery)
        self._working[group] += 1
        self.most_of_group[group] = max(self.most_of_group[group], self._working[group])
        self.most = max(self.most, self._working.total())
        asyncio.get_running_loop().call_later(self._seconds, self._done, delivery)

    def numbers(self) -> dict[str, list[int]]:
        """What came of each group, in its order."""
        found: dict[str, list[int]] = {}
        for delivery in self.deliveries:
            found.setdefault(_group_of(delivery), []).append(int(delivery.body.decode().rpartition(":")[2]))
        return found

    def _done(self, delivery: Delivery) -> None:
        self._working[_group_of(delivery)] -= 1
        delivery.ack()


def _group_of(delivery: Delivery) -> str:
    return delivery.body.decode().rpartition(":")[0]


def grouped(bodies: str, lane: Lane) -> list[Outgoing]:
    """A message in ``lane`` for each word of ``bodies``; in a partition each is ``group:number``."""
    return [
        replace(job(body, lane.queue), lane=lane, group=lane.key if lane.partition is None else body.rpartition(":")[0])
        for body in bodies.split()
    ]


def serve(transport: Transport, queue: str, deliver: Deliver, slots: int = 8, fairness: Fairness | None = None) -> None:
    """Serve the lanes of ``queue``."""
    transport.serve_lanes(queue, slots, fairness or Fairness(), deliver)


async def lane_depth(transport: Transport, lane: Lane) -> QueueDepth:
    """A look at one lane. One that does not exist looks like one that is empty and unserved: it may go at any time."""
    return await seen(transport, lane) or QueueDepth(0, 0)


async def seen(transport: Transport, lane: Lane) -> QueueDepth | None:
    """A look at one lane, past the port; ``None``: it does not exist."""
    if isinstance(transport, RabbitTransport):
        return await transport._request("look at", transport._topology.lane(lane).name, look)
    assert isinstance(transport, EmbeddedTransport)
    lanes = transport._lanes.get(lane.queue)
    known = None if lanes is None else lanes._lanes.get(lane)
    return None if known is None else QueueDepth(known.waiting, known.seats)


async def eventually_empty(transport: Transport, lane: Lane) -> None:
    """Wait until nothing waits in ``lane``. It may be served on."""

    async def is_so() -> bool:
        return (await lane_depth(transport, lane)).ready == 0

    await eventually(is_so, why=f"{lane} to be empty")


def bodies_of(hand: Hand, lane: Lane) -> list[str]:
    return [delivery.body.decode() for delivery in hand.deliveries if delivery.lane == lane]


async def others_come(transport: Transport, queue: str, hand: Hand, *, end: bool = False) -> None:
    """Wait until a message of another lane has come all the way: what could come before it would be here by now."""
    other = Lane(queue, f"other-{secrets.token_hex(4)}")
    await transport.publish(grouped("other", other))
    await eventually(lambda: bodies_of(hand, other), why="a message of another lane")
    if end:
        next(delivery for delivery in hand.deliveries if delivery.lane == other).ack()
