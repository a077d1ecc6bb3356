"""The transport on RabbitMQ: its two connections, and which part carries out each method of the port."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import TypeVar

from jq_actors.clock import Clock
from jq_actors.concurrency.background import Background
from jq_actors.config.loading import BrokerConfig
from jq_actors.errors import TransportError
from jq_actors.events import Events
from jq_actors.model.lane import Fairness
from jq_actors.transport.port import (
    Deliver,
    Outgoing,
    Published,
    PublishResult,
    QueueDepth,
    TransportHealth,
    TransportReport,
)
from jq_actors.transport.rabbitmq.amqp.consuming import RabbitDelivery
from jq_actors.transport.rabbitmq.amqp.link import Link
from jq_actors.transport.rabbitmq.amqp.versions import check_versions
from jq_actors.transport.rabbitmq.lanes.access import Access
from jq_actors.transport.rabbitmq.lanes.lanes import Lanes
from jq_actors.transport.rabbitmq.lanes.offering import Offering
from jq_actors.transport.rabbitmq.publishing.publisher import Publisher
from jq_actors.transport.rabbitmq.publishing.routes import Routes

from .checking import check
from .consumer import Consumer
from .topology import Topology, look, purge

BURY_AGAIN = 5.0
"""Seconds before a delivery that could not be buried is returned. Returned at once, it would go round in circles."""
BURIAL_GRACE = 2.0
"""Seconds that a close waits for burials. What is not buried by then goes back to its queue."""

NOTHING = QueueDepth(ready=0, consumers=0)

T = TypeVar("T")


class RabbitTransport:
    """The `Transport` of ``amqp://`` and ``amqps://``."""

    def __init__(self, config: BrokerConfig, clock: Clock, events: Events) -> None:
        self._config, self._clock, self._events = config, clock, events
        self._timeout = config.confirm_timeout.total_seconds()
        self._topology = Topology(config)
        self._routes = Routes(self._topology, clock)
        self._publisher = Publisher(config, self._routes, clock, events, lambda: self.on_room())
        self._consumer = Consumer(config, self._topology, clock, events, self._bury)
        self._offering = Offering(self._publisher, self._routes, self._topology, clock, self._timeout)
        access = Access(config, self._topology, self._consumer, self._offering, self._bury, clock, events)
        self._lanes = Lanes(self._topology, self._consumer, access)
        self._burials = Background(events, clock)
        self._is_started = self._consumes = False
        self.on_room: Callable[[], None] = lambda: None
        """Called when the broker takes messages again, after a lost connection or an alarm."""

    async def start(self) -> None:
        """Begin to connect, and return at once.

        Raises:
          ClientVersionError: aio-pika, or a library below it, is installed in a version that was not tested with.
        """
        check_versions()
        self._is_started = True
        self._publisher.start()
        self._consume_if_wanted()

    async def wait_connected(self, timeout: float) -> bool:
        """Whether it is connected; the consumer's connection counts only when a queue is wanted."""
        waits = [self._publisher.wait_connected(timeout)]
        if self._consumer.is_used:
            waits.append(self._consumer.connection.wait_up(timeout))
        return all(await asyncio.gather(*waits))

    async def publish(self, batch: Sequence[Outgoing]) -> list[PublishResult]:
        """Publish ``batch``; see `Transport.publish`."""
        messages = [self._routes.to_jobs(outgoing) for outgoing in batch]
        if any(message.home is not None for message in messages):
            return await self._offering.publish(batch, messages)
        return await self._publisher.publish(messages)

    def want(self, queue: str, prefetch: int, deliver: Deliver) -> None:
        """Consume ``queue`` from now on."""
        self._consumer.want(queue, prefetch, deliver)
        self._consume_if_wanted()

    def serve_lanes(self, queue: str, slots: int, fairness: Fairness, deliver: Deliver) -> None:
        """Serve the lanes of ``queue`` from now on."""
        self._lanes.serve(queue, slots, fairness, deliver)
        self._consume_if_wanted()

    async def stop_intake(self) -> None:
        """Stop all consuming. Deliveries stay valid."""
        await self._consumer.stop_intake(self._timeout)
        await self._lanes.stop(self._timeout)

    async def close(self) -> None:
        """Send the acks that are due, then disconnect."""
        self._is_started = self._consumes = False
        await self._burials.errands(BURIAL_GRACE)
        await self._lanes.close()
        await self._consumer.close()
        await self._publisher.close()
        await self._lanes.closed(self._timeout)

    def capacity(self, queue: str) -> int:
        """0 while the broker takes nothing, otherwise unbounded: the broker holds the queue."""
        return sys.maxsize if self._publisher.is_taking else 0

    async def depth(self, queue: str) -> QueueDepth | None:
        """A narrow look at one queue; ``None`` when it does not exist.

        Raises:
          TransportError: no answer, or a quorum queue has no leader. Then it answers as if it were empty and unused.
        """
        name, is_consumed = self._topology.jobs(queue).name, self._consumer.consumes(queue)
        depth = await self._request("look at", name, look)
        is_consumed = is_consumed and self._consumer.consumes(queue)
        if self._topology.is_quorum and depth == NOTHING and is_consumed:
            raise TransportError(f"Cannot look at {name!r}: it does not count our consumer, so it has no leader now.")
        return depth

    async def purge(self, queue: str) -> int:
        """Throw away the ready messages of ``queue``. Returns how many."""
        return await self._request("purge", self._topology.jobs(queue).name, purge)

    async def check(self, queues: Sequence[str]) -> TransportReport:
        """Check the broker for ``jq-actors check``. Works with and without `start`."""
        return await check(self._config, self._topology, queues)

    @property
    def shared(self) -> bool:
        """True: the broker holds the queues."""
        return True

    @property
    def health(self) -> TransportHealth:
        """The state of the connections and consumers now."""
        is_consuming = not self._consumer.is_used or self._consumer.connection.link is not None
        return TransportHealth(
            connected=is_consuming and self._publisher.is_connected,
            missing=self._consumer.missing,
            broken=self._consumer.broken,
            publisher_blocked=self._publisher.blocked,
        )

    @property
    def generation(self) -> int:
        """How many connections the consumer has had."""
        return self._consumer.connection.generation

    @property
    def counts_returns(self) -> bool:
        """True for quorum queues."""
        return self._config.queue_type == "quorum"

    @property
    def delivery_timeout(self) -> timedelta | None:
        """The configured value, for the broker does not report its own."""
        return self._config.delivery_timeout

    def _consume_if_wanted(self) -> None:
        if self._is_started and self._consumer.is_used and not self._consumes:
            self._consumes = True
            self._consumer.start()

    async def _request(self, what: str, name: str, request: Callable[[Link, str], Awaitable[T]]) -> T:
        # The consumer's connection first: an alarm of the broker stops only connections that publish (A17).
        link = self._consumer.connection.link or self._publisher.connection.link
        if link is None:
            raise TransportError(
                f"Cannot {what} {name!r}, no connection to the broker: {self._publisher.connection.why_down}"
            )
        try:
            async with asyncio.timeout(self._timeout):
                return await request(link, name)
        except TimeoutError as error:
            raise TransportError(f"Cannot {what} {name!r}: no answer within {self._timeout:g} s.") from error

    def _bury(self, delivery: RabbitDelivery, reason: str) -> None:
        if delivery.is_open:
            self._burials.send("burying a delivery", self._bury_or_requeue(delivery, reason))
        else:
            delivery.requeue()  # counts it as lost; it is buried when the broker delivers it again

    async def _bury_or_requeue(self, delivery: RabbitDelivery, reason: str) -> None:
        [result] = await self._publisher.publish([self._routes.to_dead(delivery, reason)])
        if isinstance(result, Published):
            delivery.ack()
        else:
            await self._clock.sleep(BURY_AGAIN)
            delivery.requeue()
