"""One channel with consumers on it, and the deliveries that arrive on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any, Protocol

from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from jq_actors.events import Events
from jq_actors.model.lane import Lane

from . import wire
from .acks import Acks
from .client import ask
from .client_logging import aloud
from .frames import Sink
from .link import Link


class RabbitDelivery:
    """The `Delivery` of this adapter."""

    __slots__ = ("_acks", "_bury", "_dispatch", "body", "header", "queue", "redelivered", "tag")

    def __init__(
        self, queue: str, body: bytes, redelivered: bool, header: bytes, tag: int, acks: Acks, bury: Bury
    ) -> None:
        self.queue, self.body, self.redelivered = queue, body, redelivered
        self.header = header
        """The payload of the content header, for its properties."""
        self.tag, self._acks, self._bury = tag, acks, bury
        self._dispatch = 0

    @property
    def is_open(self) -> bool:
        """Whether this worker still has it: it was not ended, and the broker has not taken it back."""
        return self._acks.has(self.tag)

    @property
    def lane(self) -> Lane | None:
        """Always None: a message of a lane has a `lane_consumer.LaneDelivery` around it."""
        return None

    @property
    def dispatch(self) -> int:
        """The dispatch number in the message id."""
        if not self._dispatch:
            self._dispatch = wire.dispatch_of(wire.read_message_id(self.header))
        return self._dispatch

    def ack(self) -> None:
        """Ack it with the next write."""
        self._acks.ack(self.tag)

    def requeue(self) -> None:
        """Return it with the next write."""
        self._acks.requeue(self.tag)

    def bury(self, reason: str) -> None:
        """Move it to the dead queue."""
        self._bury(self, reason)


Bury = Callable[[RabbitDelivery, str], None]
"""Moves a delivery to the dead queue, with the reason."""


class Subscriber(Protocol):
    """Receives the deliveries of one queue."""

    queue: str
    """The user's name of the queue."""
    prefetch: int
    """How many deliveries may be unacked."""

    def deliver(self, delivery: RabbitDelivery, /) -> None:
        """Take a delivery. Called on the I/O loop; must return at once and not raise."""
        ...


class ConsumerListener(Protocol):
    """Learns what the broker does to the consumers of a channel."""

    def on_cancelled(self, subscriber: Subscriber) -> None:
        """The broker ended the consumer of ``subscriber``."""
        ...

    def on_channel_lost(self, channel: ConsumingChannel, subscribers: Collection[Subscriber], reason: str) -> None:
        """The channel is gone, and with it the consumers of ``subscribers``. The connection still stands."""
        ...


class ConsumingChannel(Sink):
    """A channel of several consumers, each with its own prefetch.

    Its requests are never cancelled and have no timeout: that would close the channel, and with it every delivery that
    is open on it (A12).
    """

    def __init__(
        self, link: Link, channel: AbstractChannel, listener: ConsumerListener, bury: Bury, events: Events
    ) -> None:
        self.is_alive = True
        self.consumers = 0
        """How many consumers are on it, or will be. Whoever starts one counts it beforehand."""
        self._link, self._channel, self._listener, self._bury = link, channel, listener, bury
        self._number = link.attach(channel, self)
        self._acks = Acks(self._number, link.write, events)
        self._subscribers: dict[bytes, Subscriber] = {}
        self._prefetch: int | None = None
        self._lock = asyncio.Lock()
        self._context = aloud()

    def has(self, tag: str) -> bool:
        """Whether the broker serves the consumer ``tag``, as far as aio-pika and we know."""
        return self.is_alive and tag.encode() in self._subscribers and not self._channel.is_closed

    async def consume(self, source: str, subscriber: Subscriber, tag: str, arguments: dict[str, Any]) -> None:
        """Consume the broker's queue ``source`` for ``subscriber``, under the consumer tag ``tag``.

        Raises:
          RefusedError: the broker refuses; the channel is gone.
          TransportError: the channel or the connection went meanwhile.
        """
        async with self._lock:
            if subscriber.prefetch != self._prefetch:
                # It holds for consumers that are started later on this channel, for each of them.
                await ask(self._channel.set_qos(prefetch_count=subscriber.prefetch))
                self._prefetch = subscriber.prefetch
            self._subscribers[tag.encode()] = subscriber
            try:
                queue = await ask(self._channel.get_queue(source, ensure=False))
                await ask(queue.consume(_is_tapped, consumer_tag=tag, arguments=arguments))
            except BaseException:
                self._forget(tag.encode())
                raise

    async def cancel(self, source: str, tag: str) -> None:
        """End the consumer ``tag`` of ``source``: it gets no more deliveries. Those that it has stay valid."""
        queue = await ask(self._channel.get_queue(source, ensure=False))
        await ask(queue.cancel(tag))
        self._forget(tag.encode())

    def refuse(self) -> None:
        """Return what arrives from now on."""
        self._subscribers.clear()

    def flush(self) -> None:
        """Send the acks that are due."""
        self._acks.flush()

    def die(self, reason: str) -> None:
        """The channel is of no use any more, because of ``reason``."""
        self.is_alive = False
        self._acks.die()

    # -- from the tap

    def on_deliver(self, method: bytes, header: bytes, body: bytes) -> None:
        """Hand a delivery over to the subscriber of its consumer."""
        if not self.is_alive:
            return  # the broker takes it back
        consumer, tag, redelivered = wire.read_deliver(method)
        subscriber = self._subscribers.get(consumer)
        queue = "" if subscriber is None else subscriber.queue
        self._acks.opened(tag, queue)
        if subscriber is None:
            self._acks.requeue(tag)
            return
        delivery = RabbitDelivery(queue, body, redelivered, header, tag, self._acks, self._bury)
        self._context.run(subscriber.deliver, delivery)

    def on_consumer_cancelled(self, consumer: bytes) -> None:
        """Report it to the listener."""
        subscriber = self._forget(consumer)
        if subscriber is not None:
            self._listener.on_cancelled(subscriber)

    def on_closing(self, reason: str, code: int = 0) -> None:
        """Report it to the listener, unless the whole connection is gone."""
        self.die(reason)
        if not self._link.is_lost:  # that is reported once, for all channels
            self._listener.on_channel_lost(self, tuple(self._subscribers.values()), reason)

    def _forget(self, consumer: bytes) -> Subscriber | None:
        subscriber = self._subscribers.pop(consumer, None)
        if subscriber is not None:
            self.consumers -= 1
        return subscriber


async def _is_tapped(message: AbstractIncomingMessage) -> None:
    raise AssertionError("The tap takes every delivery of this channel.")
