"""Consuming: the queues that are wanted, those that the broker has confirmed, and the repair of the difference.

We own the topology: aio-pika restores nothing. One loop compares wanted with confirmed queues after each change and
every ``broker.reconcile_interval``. Missing queues are declared on a throw-away channel and consumed, many at once and
each by itself, so that a faulty queue harms no other (A7 to A10).
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from jq_actors.clock import Clock
from jq_actors.concurrency.background import Background
from jq_actors.concurrency.doorbell import Doorbell
from jq_actors.config.loading import BrokerConfig
from jq_actors.errors import TransportError
from jq_actors.events import ConsumerConfirmed, ConsumerLost, Events, QueueBroken
from jq_actors.transport.rabbitmq.amqp.channels import Channels
from jq_actors.transport.rabbitmq.amqp.client import RefusedError
from jq_actors.transport.rabbitmq.amqp.connection import Connection
from jq_actors.transport.rabbitmq.amqp.consuming import (
    Bury,
    ConsumingChannel,
    RabbitDelivery,
    Subscriber,
)
from jq_actors.transport.rabbitmq.amqp.link import Link

from .topology import NOT_FOUND, Queue, Topology

CHANNELS = 8
"""Up to so many queues have a channel each, more share them (A24). A fault of one queue closes its channel."""
AT_ONCE = 16
"""Queues that are restored at the same time."""
FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0
"""Bounds, in seconds, of the pause before the next attempt for a queue. It doubles."""
CONSUMER_TIMEOUT_SINCE = (4, 3)
"""First version with ``x-consumer-timeout`` for a single consumer, on quorum queues only. From 3.12 to 4.2 only
a policy or an argument of the queue can set it, and each change of an argument would be a 406."""

Deliver = Callable[[RabbitDelivery], None]
"""Takes a delivery; called on the I/O loop, must return at once and not raise."""


@dataclass(slots=True, eq=False)
class _Wanted:
    """One queue that this process wants to consume."""

    queue: str
    prefetch: int
    deliver: Deliver
    source: Queue
    """The broker's queue."""
    channel: ConsumingChannel | None = None
    tag: str = ""
    is_suspect: bool = False
    """Whether its last consume closed the channel. The next time it gets one of its own."""
    is_being_restored: bool = False
    failures: int = 0
    not_before: float = 0.0
    reported: str = ""
    """The last reported reason why an attempt failed."""

    @property
    def is_confirmed(self) -> bool:
        """Whether the broker has confirmed the consumer, and has not ended it since."""
        return self.channel is not None and self.channel.has(self.tag)


class Consumer:
    """The consuming side of the transport."""

    def __init__(self, config: BrokerConfig, topology: Topology, clock: Clock, events: Events, bury: Bury) -> None:
        self.connection = Connection("consumer", config, clock, events, self._on_up, self._on_down)
        self.on_down: Callable[[], None] = lambda: None
        """Called when the connection is lost, for others that consume over it."""
        self._config, self._topology = config, topology
        self._clock, self._events = clock, events
        self._wanted: dict[str, _Wanted] = {}
        self._missing: dict[str, _Wanted] = {}
        self._broken: dict[str, str] = {}
        self._channels = Channels(ConsumingChannel, CHANNELS, self, bury, events)
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._background = Background(events, clock)
        self._bell = Doorbell(clock)
        self._tags = itertools.count(1)

    @property
    def is_used(self) -> bool:
        """Whether any queue is wanted. Only then there is a connection."""
        return bool(self._wanted)

    @property
    def missing(self) -> tuple[str, ...]:
        """Queues that are wanted, not broken, and not confirmed."""
        return tuple(queue for queue in self._missing if queue not in self._broken)

    @property
    def broken(self) -> Mapping[str, str]:
        """Queues that are wanted and that the broker refuses, with its reason."""
        return dict(self._broken)

    def consumes(self, queue: str) -> bool:
        """Whether the broker has confirmed that it serves us ``queue``."""
        wanted = self._wanted.get(queue)
        return wanted is not None and wanted.is_confirmed

    def start(self) -> None:
        """Begin to connect, and to repair."""
        self.connection.start()
        self._background.keep("consumer reconciler", self._reconcile)

    def want(self, queue: str, prefetch: int, deliver: Deliver, source: Queue | None = None) -> None:
        """Consume ``queue`` from now on. If it is wanted already, ``prefetch`` holds from its next restore on.

        ``source`` is the broker's queue, if it is not that for the user's ``queue``.
        """
        wanted = self._wanted.get(queue)
        if wanted is None:
            source = source or self._topology.jobs(queue)
            self._wanted[queue] = self._missing[queue] = _Wanted(queue, prefetch, deliver, source)
        else:
            wanted.prefetch, wanted.deliver = prefetch, deliver
        self._bell.ring()

    async def stop_intake(self, timeout: float) -> None:
        """Want nothing any more. What arrives after ``timeout`` seconds, because the broker was silent, is returned."""
        unwanted, self._wanted, self._missing, self._broken = self._wanted, {}, {}, {}
        await self._background.errands(timeout)
        cancels = [
            asyncio.ensure_future(self._cancel(wanted.channel, wanted))
            for wanted in unwanted.values()
            if wanted.channel is not None and wanted.is_confirmed
        ]
        if cancels:
            await asyncio.wait(cancels, timeout=timeout)
        self._channels.refuse()

    async def close(self) -> None:
        """Send the acks that are due, and close the connection."""
        await self._background.stop()
        self._channels.flush()
        await self.connection.close()

    # -- wanted against confirmed

    async def _reconcile(self) -> None:
        rung = False
        while True:
            if not rung:
                self._find_missing()
            link = self.connection.link
            interval = self._config.reconcile_interval.total_seconds()
            rung = await self._bell.wait(interval if link is None else min(interval, self._restore_due(link)))

    def _restore_due(self, link: Link) -> float:
        """Begin to restore what is missing. Returns in how many seconds the next queue is due that has to wait."""
        now, pause = self._clock.monotonic(), math.inf
        for wanted in self._missing.values():
            if wanted.is_being_restored:
                continue
            if wanted.not_before > now:
                pause = min(pause, wanted.not_before - now)
                continue
            wanted.is_being_restored = True
            self._background.send(f"restoring {wanted.queue}", self._restore(wanted, link))
        return pause

    def _find_missing(self) -> None:
        """Find queues that were lost without a notice."""
        for wanted in self._wanted.values():
            if not wanted.is_confirmed and wanted.queue not in self._missing:
                self._lose(wanted, "the broker does not serve it any more")

    async def _restore(self, wanted: _Wanted, link: Link) -> None:
        try:
            async with self._at_once:
                if self._is_current(wanted, link):
                    await self._declare_and_consume(wanted, link)
        except (TransportError, TimeoutError) as error:
            self._retry_later(wanted, link, str(error) or "the broker does not answer")
        finally:
            wanted.is_being_restored = False
            if not wanted.is_confirmed:
                self._bell.ring()

    def _is_current(self, wanted: _Wanted, link: Link) -> bool:
        return link is self.connection.link and self._wanted.get(wanted.queue) is wanted

    async def _declare_and_consume(self, wanted: _Wanted, link: Link) -> None:
        try:
            await self._topology.declare(link, wanted.source)
        except RefusedError as error:
            if error.code == NOT_FOUND:
                raise  # its node is down, which will pass
            self._break(wanted, str(error))
            return
        if not self._is_current(wanted, link):
            return
        channel = await self._channels.take(link, alone=wanted.is_suspect)
        tag = f"{wanted.queue}.{next(self._tags)}"
        try:
            await channel.consume(wanted.source.name, wanted, tag, consumer_arguments(self._config, link))
        except RefusedError as error:
            # On a shared channel another queue may be at fault. On a channel of its own there is no doubt.
            if wanted.is_suspect and error.code != NOT_FOUND:
                self._break(wanted, str(error))
                return
            wanted.is_suspect = True
            raise
        wanted.channel, wanted.tag = channel, tag
        wanted.is_suspect, wanted.failures, wanted.reported = False, 0, ""
        self._missing.pop(wanted.queue, None)
        self._broken.pop(wanted.queue, None)
        self._events.emit(ConsumerConfirmed(wanted.queue))

    def _break(self, wanted: _Wanted, reason: str) -> None:
        """Leave it out, and check with each reconciliation whether somebody has repaired it."""
        wanted.not_before = self._clock.monotonic() + self._config.reconcile_interval.total_seconds()
        if self._wanted.get(wanted.queue) is not wanted:
            return  # the intake was stopped meanwhile
        if self._broken.get(wanted.queue) != reason:
            self._broken[wanted.queue] = reason
            self._events.emit(QueueBroken(wanted.queue, reason))

    def _retry_later(self, wanted: _Wanted, link: Link, reason: str) -> None:
        """Schedule another attempt."""
        wanted.failures += 1
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(wanted.failures, 16))
        wanted.not_before = self._clock.monotonic() + delay * self._clock.random()
        if wanted.reported != reason and not link.is_lost:
            wanted.reported = reason
            self._events.emit(ConsumerLost(wanted.queue, reason))

    # -- the connection

    def _on_up(self, link: Link) -> None:
        for wanted in self._wanted.values():
            wanted.not_before, wanted.failures = 0.0, 0
        self._bell.ring()

    def _on_down(self) -> None:
        self._channels.lose()
        for wanted in self._wanted.values():
            wanted.channel = None
        self._missing = dict(self._wanted)
        self.on_down()

    # -- ConsumerListener

    def on_cancelled(self, subscriber: Subscriber) -> None:
        """Report it, and restore the consumer."""
        wanted = self._wanted.get(subscriber.queue)
        if wanted is subscriber:
            self._lose(wanted, "the broker ended it: its queue was deleted, or its node went down")

    def on_channel_lost(self, channel: ConsumingChannel, subscribers: Collection[Subscriber], reason: str) -> None:
        """Report it, and restore the consumers."""
        if not self._channels.remove(channel):
            return
        for subscriber in subscribers:
            wanted = self._wanted.get(subscriber.queue)
            if wanted is subscriber and wanted.channel is channel:
                self._lose(wanted, reason)

    def _lose(self, wanted: _Wanted, reason: str) -> None:
        wanted.channel = None
        self._missing[wanted.queue] = wanted
        self._events.emit(ConsumerLost(wanted.queue, reason))
        self._bell.ring()

    async def _cancel(self, channel: ConsumingChannel, wanted: _Wanted) -> None:
        try:
            await channel.cancel(wanted.source.name, wanted.tag)
        except TransportError:
            return  # the consumer is gone with its channel


def consumer_arguments(config: BrokerConfig, link: Link) -> dict[str, Any]:
    """The arguments of each of our consumers."""
    if config.queue_type == "quorum" and link.version >= CONSUMER_TIMEOUT_SINCE:
        return {"x-consumer-timeout": round(config.delivery_timeout.total_seconds() * 1000)}
    return {}
