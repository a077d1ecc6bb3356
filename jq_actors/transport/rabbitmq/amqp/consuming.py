"""One channel with consumers on it, and the deliveries that come by it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any, Protocol

from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp.commands import Basic

from jq_actors.events import Events
from jq_actors.model.lane import Lane
from jq_actors.transport.port import Delivery

from . import wire
from .acks import Acks
from .aiormq_logging import aloud
from .link import Link, ask, closing_reason


class Held(Delivery, Protocol):
    """A delivery with what the broker keeps of it."""

    @property
    def header(self) -> bytes:
        """The payload of the content header, for its properties."""
        ...


Bury = Callable[[Held, str], None]


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
        """Whether it is in our hand: not ended, and not taken back by the broker."""
        return self._acks.has(self.tag)

    @property
    def lane(self) -> Lane | None:
        """None: what comes by a lane has a `seat.LaneDelivery` around it."""
        return None

    @property
    def dispatch(self) -> int:
        """See `Delivery.dispatch`."""
        if not self._dispatch:
            self._dispatch = wire.dispatch_of(wire.read_message_id(self.header))
        return self._dispatch

    def ack(self) -> None:
        """See `Delivery.ack`."""
        self._acks.ack(self.tag)

    def requeue(self) -> None:
        """See `Delivery.requeue`."""
        self._acks.requeue(self.tag)

    def bury(self, reason: str) -> None:
        """See `Delivery.bury`."""
        self._bury(self, reason)


class Taker(Protocol):
    """Who takes the deliveries of one queue."""

    @property
    def queue(self) -> str:
        """The user's name of the queue."""
        ...

    @property
    def prefetch(self) -> int:
        """Most unacked deliveries."""
        ...

    @property
    def deliver(self) -> Callable[[RabbitDelivery], None]:
        """Takes them."""
        ...


class Told(Protocol):
    """Who is told what the broker does to the consumers of a channel."""

    def on_cancelled(self, taker: Taker) -> None:
        """The broker ended the consumer of ``taker``."""
        ...

    def on_channel_lost(self, channel: ConsumingChannel, takers: Collection[Taker], reason: str) -> None:
        """The channel is gone, and with it the consumers of ``takers``."""
        ...

    def bury(self, delivery: Held, reason: str) -> None:
        """Carry out `RabbitDelivery.bury`."""
        ...


class ConsumingChannel:
    """A channel of several consumers, each with its own prefetch.

    Its requests are never cancelled and have no timeout: that would close the channel, and with it every
    delivery that is open on it (A12).
    """

    def __init__(self, link: Link, channel: AbstractChannel, told: Told, events: Events) -> None:
        self.is_alive = True
        self.seats = 0
        """How many consumers were promised a place on it; who opens consumers counts up."""
        self._link, self._channel, self._told = link, channel, told
        self._acks = Acks(channel.number, link.write, events)
        self._takers: dict[bytes, Taker] = {}
        self._prefetch: int | None = None
        self._lock = asyncio.Lock()
        self._context = aloud()
        channel.on_consumer_cancel_callbacks.add(self._on_cancel)
        channel.closing.add_done_callback(self._on_closed)
        if link.tap is not None:
            link.tap.attach(channel.number, self)

    def has(self, tag: str) -> bool:
        """Whether the broker serves the consumer ``tag``, as far as aiormq and we know."""
        return self.is_alive and tag.encode() in self._takers and not self._channel.is_closed

    async def consume(self, source: str, taker: Taker, tag: str, arguments: dict[str, Any]) -> None:
        """Consume the broker's queue ``source`` for ``taker``, by the name ``tag``.

        Raises:
          RefusedError: the broker refuses; the channel is gone.
          TransportError: the channel or the connection went meanwhile.
        """
        async with self._lock:
            if taker.prefetch != self._prefetch:
                # Holds for consumers that are started later on this channel, each for itself.
                await ask(self._channel.basic_qos(prefetch_count=taker.prefetch))
                self._prefetch = taker.prefetch
            self._takers[tag.encode()] = taker
            try:
                await ask(self._channel.basic_consume(source, self._on_stock, consumer_tag=tag, arguments=arguments))
            except BaseException:
                self._leave(tag)
                raise

    async def cancel(self, tag: str) -> None:
        """End the consumer ``tag``: after this no delivery of it comes. Those in hand stay valid."""
        await ask(self._channel.basic_cancel(tag))
        self._leave(tag)

    def refuse(self) -> None:
        """From now on give back what comes."""
        self._takers.clear()

    def flush(self) -> None:
        """Send the acks that are due."""
        self._acks.flush()

    # -- from the tap, or from aiormq

    def on_deliver(self, method: bytes, header: bytes, body: bytes) -> None:
        """See `Sink`."""
        name, tag, redelivered = wire.read_deliver(method)
        self._take(name, tag, redelivered, header, body)

    def on_return(self, method: bytes, header: bytes) -> None:
        """Not on this channel: nothing is published here."""
        raise AssertionError("A return on a consumer's channel.")

    def on_confirm(self, tag: int, *, multiple: bool, taken: bool) -> None:
        """Not on this channel: nothing is published here."""
        raise AssertionError("A confirm on a consumer's channel.")

    def on_declared(self, method: bytes) -> None:
        """Not on this channel: nothing is declared here."""
        raise AssertionError("An answer to a declare on a consumer's channel.")

    def on_prefetch_set(self) -> bool:
        """aiormq's, which has asked."""
        return False

    def on_closing(self, reason: str) -> None:
        """See `Sink`."""
        self.is_alive = False
        self._acks.die()

    async def _on_stock(self, message: DeliveredMessage) -> None:
        assert isinstance(message.delivery, Basic.Deliver)
        delivery = message.delivery
        name = str(delivery.consumer_tag).encode()
        self._take(
            name,
            delivery.delivery_tag or 0,
            bool(delivery.redelivered),
            message.header.marshal(),
            message.body,
        )

    def _take(self, name: bytes, tag: int, redelivered: bool, header: bytes, body: bytes) -> None:
        if not self.is_alive:
            return  # it is the broker's again
        taker = self._takers.get(name)
        queue = "" if taker is None else taker.queue
        self._acks.opened(tag, queue)
        if taker is None:
            self._acks.requeue(tag)
            return
        delivery = RabbitDelivery(queue, body, redelivered, header, tag, self._acks, self._told.bury)
        self._context.run(taker.deliver, delivery)

    def _on_cancel(self, frame: Basic.Cancel) -> None:
        taker = self._leave(frame.consumer_tag or "")
        if taker is not None:
            self._told.on_cancelled(taker)

    def _leave(self, tag: str) -> Taker | None:
        taker = self._takers.pop(tag.encode(), None)
        if taker is not None:
            self.seats -= 1
        return taker

    def _on_closed(self, closing: asyncio.Future[Any]) -> None:
        reason = closing_reason(closing)
        if self.is_alive:
            self.on_closing(reason)
        if not self._link.is_lost:  # that is told once, for all channels
            self._told.on_channel_lost(self, self._takers.values(), reason)
