"""A channel with consumers of lanes on it.

Each request about a lane goes out in one write with the look that follows it, because the broker carries out a
channel's requests one after the other. That costs one round trip, and leaves others hardly any time between the request
and its look.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from aio_pika.abc import AbstractChannel

from jq_actors.errors import TransportError
from jq_actors.events import Events
from jq_actors.transport.port import QueueDepth
from jq_actors.transport.rabbitmq.amqp import wire
from jq_actors.transport.rabbitmq.amqp.client import ask
from jq_actors.transport.rabbitmq.amqp.consuming import (
    Bury,
    ConsumerListener,
    ConsumingChannel,
    RabbitDelivery,
    Subscriber,
)
from jq_actors.transport.rabbitmq.amqp.link import Link


class LaneChannel(ConsumingChannel):
    """A consuming channel whose consumers begin and end with a look."""

    def __init__(
        self, link: Link, channel: AbstractChannel, listener: ConsumerListener, bury: Bury, events: Events
    ) -> None:
        super().__init__(link, channel, listener, bury, events)
        self._looks: deque[asyncio.Future[QueueDepth]] = deque()

    async def attach(self, source: str, subscriber: Subscriber, tag: str, arguments: dict[str, Any]) -> QueueDepth:
        """Consume the broker's queue ``source`` for ``subscriber`` under the tag ``tag``, *then* look at the queue.

        Raises:
          TransportError: the broker refuses, or the channel went meanwhile: it is gone.
        """
        self._check_alive()
        request = wire.consume(self._number, source, tag, arguments)
        if subscriber.prefetch != self._prefetch:
            self._prefetch = subscriber.prefetch
            request = wire.prefetch(self._number, subscriber.prefetch) + request
        self._subscribers[tag.encode()] = subscriber
        try:
            return await self._look(source, request)
        except TransportError:
            self._forget(tag.encode())
            raise

    async def cancel_and_return(
        self, tag: str, source: str, take_unfinished: Callable[[], Sequence[RabbitDelivery]], *, is_clean: bool
    ) -> QueueDepth:
        """Cancel the consumer ``tag`` of ``source`` and return its deliveries in one write, *then* look.

        When this returns, the broker has all of them back.

        Parameters:
          take_unfinished: acks what has finished and takes the rest; called again until nothing more has arrived.
          is_clean: no delivery can be on its way while the consumer is cancelled.

        Returns what the last look has seen.

        Raises:
          TransportError: the channel went, and the broker took everything back.
        """
        self._check_alive()
        # What is acked only now must not let more messages come: it goes out behind the cancel.
        cancel = self._acks.take_due() + wire.cancel(self._number, tag)
        try:
            depth = await self._settle(take_unfinished(), source, cancel)
            # Messages that the queue had sent before the cancel may arrive behind the first answer: the channel's
            # process handles its messages in order, and the look was there first.
            is_settled = is_clean
            while (unfinished := take_unfinished()) or not is_settled:
                is_settled = True
                depth = await self._settle(unfinished, source)
        finally:
            self._forget(tag.encode())
        return depth

    async def close(self) -> None:
        """Close the channel, by which the broker takes back all deliveries at once. Raises TransportError."""
        self._check_alive()
        self._acks.flush()
        for tag in tuple(self._subscribers):
            self._forget(tag)
        self.die("closed by us")  # no consumer may start on it any more
        await ask(self._channel.close())

    def die(self, reason: str) -> None:
        """The channel is of no use any more, because of ``reason``: no look will be answered."""
        super().die(reason)
        while self._looks:
            answer = self._looks.popleft()
            if not answer.done():
                answer.set_exception(TransportError(f"The channel is gone: {reason}"))

    async def _settle(self, unfinished: Sequence[RabbitDelivery], source: str, before: bytes = b"") -> QueueDepth:
        for delivery in unfinished:
            delivery.requeue()
        depth = await self._look(source, before + self._acks.take_due())
        self._check_alive()  # the end of the channel may arrive in one read with the answer
        return depth

    async def _look(self, source: str, before: bytes) -> QueueDepth:
        answer: asyncio.Future[QueueDepth] = asyncio.get_running_loop().create_future()
        self._looks.append(answer)
        self._link.write(before + wire.look(self._number, source))
        return await answer

    def _check_alive(self) -> None:
        if not self.is_alive:
            raise TransportError("The channel is gone.")

    # -- from the tap

    def on_declared(self, method: bytes) -> None:
        """Answer the oldest look."""
        if not self.is_alive:
            return  # the channel was given up before the socket was closed
        answer = self._looks.popleft()
        if not answer.done():
            answer.set_result(QueueDepth(*wire.read_declared(method)))

    def on_prefetch_set(self) -> bool:
        """Only this class asks for a prefetch on this channel."""
        return True
