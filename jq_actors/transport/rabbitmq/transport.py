"""The transport on RabbitMQ: its two connections, and the port's methods led to their parts."""

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
from jq_actors.events import Events, StockFrameReader
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
from jq_actors.transport.rabbitmq.amqp.consuming import Held
from jq_actors.transport.rabbitmq.amqp.frames import why_not_tapped
from jq_actors.transport.rabbitmq.amqp.link import Link
from jq_actors.transport.rabbitmq.lanes.access import Access
from jq_actors.transport.rabbitmq.lanes.lanes import Lanes
from jq_actors.transport.rabbitmq.lanes.offering import Offering
from jq_actors.transport.rabbitmq.publishing.publisher import Publisher
from jq_actors.transport.rabbitmq.publishing.routes import Ways

from .checking import check
from .consumer import Consumer
from .topology import Topology, look, purge

BURY_AGAIN = 5.0
"""Seconds before a delivery that could not be buried is given back; at once, it would go round in circles."""
BURIAL_GRACE = 2.0
"""Seconds that a close waits for burials; what is not buried by then goes back to its queue."""

NOTHING = QueueDepth(ready=0, consumers=0)

T = TypeVar("T")


class RabbitTransport:
    """The `Transport` of ``amqp://`` and ``amqps://``."""

    def __init__(self, config: BrokerConfig, clock: Clock, events: Events) -> None:
        self._config, self._clock, self._events = config, clock, events
        self._timeout = config.confirm_timeout.total_seconds()
        self._topology = Topology(config)
        self._ways = Ways(self._topology, clock)
        self._publisher = Publisher(config, self._ways, clock, events, lambda: self.on_room())
        self._consumer = Consumer(config, self._topology, clock, events, self._bury)
        self._offering = Offering(self._publisher, self._ways, self._topology, clock, self._timeout)
        access = Access(config, self._topology, self._consumer, self._offering, self._bury, clock, events)
        self._lanes = Lanes(self._topology, self._consumer, access)
        self._burials = Background(events, clock)
        self._is_started = self._consumes = False
        self.on_room: Callable[[], None] = lambda: None
        """Called when the broker takes messages again, after a lost connection or an alarm."""

    async def start(self) -> None:
        """See `Transport.start`."""
        self._is_started = True
        reason = why_not_tapped()
        if reason is not None:
            self._events.emit(StockFrameReader(reason))
        self._publisher.start()
        self._consume_if_wanted()

    async def wait_connected(self, timeout: float) -> bool:
        """See `Transport.wait_connected`; the consumer's connection counts when anything is wanted."""
        waits = [self._publisher.wait_connected(timeout)]
        if self._consumer.is_used:
            waits.append(self._consumer.connection.wait_up(timeout))
        return all(await asyncio.gather(*waits))

    async def publish(self, batch: Sequence[Outgoing]) -> list[PublishResult]:
        """See `Transport.publish`."""
        letters = [self._ways.to_jobs(outgoing) for outgoing in batch]
        if any(letter.home is not None for letter in letters):
            return await self._offering.publish(batch, letters)
        return await self._publisher.publish(letters)

    def want(self, queue: str, prefetch: int, deliver: Deliver) -> None:
        """See `Transport.want`."""
        self._consumer.want(queue, prefetch, deliver)
        self._consume_if_wanted()

    def serve_lanes(self, queue: str, slots: int, fairness: Fairness, deliver: Deliver) -> None:
        """See `Transport.serve_lanes`."""
        self._lanes.serve(queue, slots, fairness, deliver)
        self._consume_if_wanted()

    async def stop_intake(self) -> None:
        """See `Transport.stop_intake`."""
        await self._consumer.stop_intake(self._timeout)
        await self._lanes.stop(self._timeout)

    async def close(self) -> None:
        """See `Transport.close`."""
        self._is_started = self._consumes = False
        await self._burials.errands(BURIAL_GRACE)
        await self._lanes.close()
        await self._consumer.close()
        await self._publisher.close()
        await self._lanes.closed(self._timeout)

    def capacity(self, queue: str) -> int:
        """None while the broker takes nothing, else without bound: the queue is the broker's."""
        return sys.maxsize if self._publisher.is_taking else 0

    async def depth(self, queue: str) -> QueueDepth | None:
        """See `Transport.depth`.

        A quorum queue without a leader answers as if it were empty, and consumed by nobody.
        """
        name, is_consumed = self._topology.jobs(queue).name, self._consumer.consumes(queue)
        depth = await self._request("look at", name, look)
        is_consumed = is_consumed and self._consumer.consumes(queue)
        if self._topology.is_quorum and depth == NOTHING and is_consumed:
            raise TransportError(f"Cannot look at {name!r}: it does not count our consumer, so it has no leader now.")
        return depth

    async def purge(self, queue: str) -> int:
        """See `Transport.purge`."""
        return await self._request("purge", self._topology.jobs(queue).name, purge)

    async def check(self, queues: Sequence[str]) -> TransportReport:
        """See `Transport.check`. Works with and without `start`."""
        return await check(self._config, self._topology, queues)

    @property
    def shared(self) -> bool:
        """Shared: the queues are the broker's."""
        return True

    @property
    def health(self) -> TransportHealth:
        """See `Transport.health`."""
        is_consuming = not self._consumer.is_used or self._consumer.connection.link is not None
        return TransportHealth(
            connected=is_consuming and self._publisher.is_connected,
            missing=self._consumer.missing,
            broken=self._consumer.broken,
            publisher_blocked=self._publisher.blocked,
        )

    @property
    def generation(self) -> int:
        """See `Transport.generation`."""
        return self._consumer.connection.generation

    @property
    def counts_returns(self) -> bool:
        """See `Transport.counts_returns`; quorum queues do."""
        return self._config.queue_type == "quorum"

    @property
    def delivery_timeout(self) -> timedelta | None:
        """See `Transport.delivery_timeout`; as configured, for the broker does not tell."""
        return self._config.delivery_timeout

    def _consume_if_wanted(self) -> None:
        if self._is_started and self._consumer.is_used and not self._consumes:
            self._consumes = True
            self._consumer.start()

    async def _request(self, what: str, name: str, request: Callable[[Link, str], Awaitable[T]]) -> T:
        # The consumer's connection first: an alarm of the broker stops only those that publish (A17).
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

    def _bury(self, delivery: Held, reason: str) -> None:
        if delivery.is_open:
            self._burials.send("burying a delivery", self._bury_or_give_back(delivery, reason))
        else:
            delivery.requeue()  # counts it as lost; the broker delivers it again, and then it is buried

    async def _bury_or_give_back(self, delivery: Held, reason: str) -> None:
        [result] = await self._publisher.publish([self._ways.to_dead(delivery, reason)])
        if isinstance(result, Published):
            delivery.ack()
        else:
            await self._clock.sleep(BURY_AGAIN)
            delivery.requeue()
