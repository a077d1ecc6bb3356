"""The queues of one namespace on the broker: their names, their arguments, and how they are declared.

Arguments of a queue that exists cannot be changed (406): nothing here depends on the server's version, and
every change is a migration (A54).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jq_actors.config import BrokerConfig
from jq_actors.transport.port import QueueDepth

from .link import Link, RefusedError, ask

MAX_PRIORITY = 10
"""``x-max-priority`` of the classic queues in ``broker.priority_queues``; quorum queues need no argument.

It costs RabbitMQ 3.10 about 30 µs more for a message and 140 KiB for a queue, and cannot be added later (406).
"""
NEVER = 1_000_000
"""Delivery limit of the dead queue: without one, RabbitMQ 4 drops what was looked at 20 times."""

NOT_FOUND = 404


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable queue as it has to be on the broker."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)


class Topology:
    """Names and arguments, from the configuration."""

    def __init__(self, config: BrokerConfig) -> None:
        self.namespace = config.namespace
        self._is_quorum = config.queue_type == "quorum"
        self._delivery_limit = config.delivery_limit
        self._priority_queues = frozenset(config.priority_queues)
        self._dead_declared_on: Link | None = None

    @property
    def dead(self) -> Queue:
        """The queue of what was buried, and of quorum queues' dead letters. Nobody of ours consumes it."""
        name = f"{self.namespace}.dead"
        if self._is_quorum:
            return Queue(name, {"x-queue-type": "quorum", "x-delivery-limit": NEVER})
        return Queue(name)

    def jobs(self, queue: str) -> Queue:
        """The broker's queue for the user's ``queue``."""
        name = f"{self.namespace}.{queue}"
        if self._is_quorum:
            limit = {"x-queue-type": "quorum", "x-delivery-limit": self._delivery_limit}
            return Queue(name, limit | self._dead_letters("", self.dead.name))
        return Queue(name, {"x-max-priority": MAX_PRIORITY} if queue in self._priority_queues else {})

    def timer(self, name: str, milliseconds: int, then: str) -> Queue:
        """A queue that holds each message for ``milliseconds``, then gives it to the exchange ``then``."""
        arguments = {"x-message-ttl": milliseconds} | self._dead_letters(then)
        if self._is_quorum:
            arguments |= {"x-queue-type": "quorum", "x-delivery-limit": NEVER}
        return Queue(name, arguments)

    async def declare(self, link: Link, queue: Queue) -> None:
        """Make sure that ``queue`` exists, and the dead queue that its dead letters need.

        Raises:
          RefusedError: it exists with other arguments, or we may not.
        """
        if self._is_quorum and queue.name != self.dead.name and self._dead_declared_on is not link:
            await declare(link, self.dead)
            self._dead_declared_on = link
        await declare(link, queue)

    def _dead_letters(self, exchange: str, routing_key: str | None = None) -> dict[str, Any]:
        arguments: dict[str, Any] = {"x-dead-letter-exchange": exchange}
        if routing_key is not None:
            arguments["x-dead-letter-routing-key"] = routing_key
        if self._is_quorum:
            # Only so is a dead letter kept until its new queue has confirmed it; it demands this overflow.
            arguments |= {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
        return arguments


async def declare(link: Link, queue: Queue) -> None:
    """Declare ``queue``, which does nothing when it exists with equal arguments."""
    async with link.throw_away_channel() as channel:
        await ask(channel.queue_declare(queue.name, durable=True, arguments=queue.arguments))


async def look(link: Link, name: str) -> QueueDepth | None:
    """What is in the queue ``name``; ``None``: there is none. Declares nothing."""
    try:
        async with link.throw_away_channel() as channel:
            found = await ask(channel.queue_declare(name, passive=True))
    except RefusedError as error:
        if error.code != NOT_FOUND:
            raise
        return None
    return QueueDepth(found.message_count or 0, found.consumer_count or 0)


async def purge(link: Link, name: str) -> int:
    """Throw away what waits in the queue ``name``; how many that were. No queue: none."""
    try:
        async with link.throw_away_channel() as channel:
            answer = await ask(channel.queue_purge(name))
    except RefusedError as error:
        if error.code != NOT_FOUND:
            raise
        return 0
    return answer.message_count or 0
