"""The queues of one namespace on the broker: their names and arguments, and what is asked about them.

The arguments of an existing queue cannot be changed (406). So nothing here depends on the server's version, and every
change needs a migration (A54).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from jq_actors.config.loading import BrokerConfig
from jq_actors.model.lane import Lane
from jq_actors.transport.port import QueueDepth
from jq_actors.transport.rabbitmq.amqp.client import RefusedError, ask, unless_missing
from jq_actors.transport.rabbitmq.amqp.link import REQUEST_TIMEOUT, Link

from .lane_names import lane_name

MAX_PRIORITY = 10
"""``x-max-priority`` of the classic queues in ``broker.priority_queues``; quorum queues need no argument.

It costs RabbitMQ 3.10 about 30 µs for each message and 140 KiB for each queue, and cannot be added later (406).
"""
NEVER = 1_000_000
"""Delivery limit of the dead queue and of lobbies: without one, RabbitMQ 4 drops what was returned 20 times."""

NOT_FOUND = 404
PRECONDITION_FAILED = 406

TYPE = "x-queue-type"
CLASSIC = {TYPE: "classic"}
"""Always given: otherwise the virtual host's default decides, which others may change."""


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable queue as it has to be on the broker."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)


class Topology:
    """Names and arguments, from the configuration."""

    def __init__(self, config: BrokerConfig) -> None:
        self.namespace = config.namespace
        self.is_quorum = config.queue_type == "quorum"
        self._delivery_limit = config.delivery_limit
        self._priority_queues = frozenset(config.priority_queues)
        self._dead_declared_on: Link | None = None

    @property
    def dead(self) -> Queue:
        """The queue of buried deliveries and of quorum queues' dead letters. We never consume it."""
        name = f"{self.namespace}.dead"
        return Queue(name, self._unlimited())

    def jobs(self, queue: str) -> Queue:
        """The broker's queue for the user's ``queue``."""
        arguments = self._durability()
        if queue in self._priority_queues and not self.is_quorum:
            arguments["x-max-priority"] = MAX_PRIORITY
        return Queue(f"{self.namespace}.{queue}", arguments)

    def lane(self, lane: Lane) -> Queue:
        """The broker's queue for ``lane``, as durable as that for the user's queue."""
        name = lane_name(self.namespace, lane)
        arguments: dict[str, Any] = {"x-single-active-consumer": True} if lane.seats == 1 else {}
        return Queue(name, arguments | self._durability())

    def lobby(self, queue: str) -> Queue:
        """The queue of the tokens for the lanes of the user's ``queue``."""
        return Queue(f"{self.namespace}.{lobby_label(queue)}", self._unlimited())

    def timer(self, name: str, milliseconds: int, then: str) -> Queue:
        """A queue that holds each message for ``milliseconds``, then passes it to the exchange ``then``."""
        return Queue(name, {"x-message-ttl": milliseconds} | self._dead_letters(then) | self._unlimited())

    async def declare(self, link: Link, queue: Queue) -> None:
        """Make sure that ``queue`` exists, and the dead queue that its dead letters need.

        Raises:
          RefusedError: it exists with other arguments, or we may not.
        """
        if self.is_quorum and queue.name != self.dead.name and self._dead_declared_on is not link:
            await declare(link, self.dead)
            self._dead_declared_on = link
        await declare(link, queue)

    def _unlimited(self) -> dict[str, Any]:
        return {TYPE: "quorum", "x-delivery-limit": NEVER} if self.is_quorum else dict(CLASSIC)

    def _durability(self) -> dict[str, Any]:
        if not self.is_quorum:
            return dict(CLASSIC)
        limit = {TYPE: "quorum", "x-delivery-limit": self._delivery_limit}
        return limit | self._dead_letters("", self.dead.name)

    def _dead_letters(self, exchange: str, routing_key: str | None = None) -> dict[str, Any]:
        arguments: dict[str, Any] = {"x-dead-letter-exchange": exchange}
        if routing_key is not None:
            arguments["x-dead-letter-routing-key"] = routing_key
        if self.is_quorum:
            # This strategy alone keeps a dead letter until its new queue has confirmed it. It demands this overflow.
            arguments |= {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
        return arguments


def lobby_label(queue: str) -> str:
    """The name of the lobby of ``queue`` among the user's queues, in events and in readiness."""
    return f"lobby.{queue}"


async def declare(link: Link, queue: Queue) -> None:
    """Declare ``queue``, unless it exists with equal arguments.

    A queue that was declared without a type, and got another type from its virtual host, is left as it is.

    Raises:
      RefusedError: it exists with other arguments, or we may not.
    """
    try:
        await _declare(link, queue.name, queue.arguments)
    except RefusedError as error:
        untyped = {key: value for key, value in queue.arguments.items() if CLASSIC.get(key) != value}
        if error.code != PRECONDITION_FAILED or f"'{TYPE}'" not in str(error) or untyped == queue.arguments:
            raise
        try:
            await _declare(link, queue.name, untyped)
        except RefusedError:
            raise error from None


async def look(link: Link, name: str) -> QueueDepth | None:
    """How many messages and consumers the queue ``name`` has; ``None``: it does not exist. Declares nothing.

    Raises:
      TransportError, TimeoutError: no answer, or one that does not say whether the queue exists.
    """
    async with asyncio.timeout(REQUEST_TIMEOUT):
        return await unless_missing(link.counts.of(name))


async def delete_if_unused(link: Link, name: str) -> bool:
    """Delete the queue ``name`` unless it has consumers or messages. Returns whether it is gone."""
    try:
        async with link.throw_away_channel() as channel:
            await ask(channel.queue_delete(name, if_unused=True, if_empty=True))
    except RefusedError as error:
        if not error.is_missing and error.code != PRECONDITION_FAILED:
            raise
        return error.is_missing
    return True


async def purge(link: Link, name: str) -> int:
    """Throw away the ready messages of the queue ``name``. Returns how many; 0 if there is no such queue."""
    return await unless_missing(_purge(link, name)) or 0


async def _purge(link: Link, name: str) -> int | None:
    async with link.throw_away_channel() as channel:
        queue = await ask(channel.get_queue(name, ensure=False))
        return (await ask(queue.purge())).message_count


async def _declare(link: Link, name: str, arguments: dict[str, Any]) -> None:
    async with link.throw_away_channel() as channel:
        await ask(channel.declare_queue(name, durable=True, arguments=arguments))
