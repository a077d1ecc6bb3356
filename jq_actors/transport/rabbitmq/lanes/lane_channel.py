"""A channel with consumers of lanes on it.

What a lane is asked goes out in one write with the look that answers it: the broker carries a channel's requests out
one after the other. So it costs one way to and fro, and between a request and its look there is hardly time for others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from aiormq.abc import AbstractChannel

from jq_actors.errors import TransportError
from jq_actors.events import Events
from jq_actors.transport.port import QueueDepth
from jq_actors.transport.rabbitmq.amqp import wire
from jq_actors.transport.rabbitmq.amqp.consuming import ConsumingChannel, RabbitDelivery, Taker, Told
from jq_actors.transport.rabbitmq.amqp.link import Link, ask
from jq_actors.transport.rabbitmq.topology import look


class LaneChannel(ConsumingChannel):
    """A consuming channel whose consumers begin and end with a look."""

    def __init__(self, link: Link, channel: AbstractChannel, told: Told, events: Events) -> None:
        super().__init__(link, channel, told, events)
        self._looks: deque[asyncio.Future[QueueDepth]] = deque()

    async def attach(self, source: str, taker: Taker, tag: str, arguments: dict[str, Any]) -> QueueDepth:
        """Consume the lane that the broker calls ``source`` for ``taker``, by the name ``tag``, *then* look at it.

        Raises:
          TransportError: the broker refuses, or the channel went meanwhile: it is gone.
        """
        if self._link.tap is None:
            await self.consume(source, taker, tag, arguments)
            return await self._look(source)
        self._check_alive()
        request = wire.consume(self._channel.number, source, tag, arguments)
        if taker.prefetch != self._prefetch:
            self._prefetch = taker.prefetch
            request = wire.prefetch(self._channel.number, taker.prefetch) + request
        self._takers[tag.encode()] = taker
        try:
            return await self._look(source, request)
        except TransportError:
            self._leave(tag)
            raise

    async def give_back(
        self, tag: str, source: str, rest: Callable[[], Sequence[RabbitDelivery]], *, is_clean: bool
    ) -> QueueDepth:
        """End the consumer ``tag`` of ``source`` and give ``rest`` back, in one breath, *then* look.

        ``rest`` acks what has ended, and is asked again until nothing more has come. After it returns, the broker has
        it all back. ``is_clean``: nothing can have crossed the cancel. Returns what the last look has seen.

        Raises:
          TransportError: the channel went, and with it took everything back.
        """
        self._check_alive()
        cancel = b""
        if self._link.tap is None:
            await ask(self._channel.basic_cancel(tag))  # aiormq's writes and ours cannot be brought into one order
            self._check_alive()
        else:
            # What is acked only now must not let more come: that goes out behind the cancel.
            cancel = self._acks.take_due() + wire.cancel(self._channel.number, tag)
        try:
            depth = await self._settle(rest(), source, cancel)
            # What the queue had sent before the cancel may come behind the first answer: the channel's process takes
            # its messages in their order, and the look was there first.
            is_settled = is_clean
            while (held := rest()) or not is_settled:
                is_settled = True
                depth = await self._settle(held, source)
        finally:
            self._leave(tag)
        return depth

    async def close(self) -> None:
        """Give back all that is in hand of its consumers, at once, by closing it. Raises TransportError."""
        self._check_alive()
        self._acks.flush()
        for tag in tuple(self._takers):
            self._leave(tag.decode())
        self.on_closing("")  # nobody may join it any more
        await ask(self._channel.close())

    async def _settle(self, held: Sequence[RabbitDelivery], source: str, before: bytes = b"") -> QueueDepth:
        for delivery in held:
            delivery.requeue()
        depth = await self._look(source, before + self._acks.take_due())
        self._check_alive()  # its end may come in one read with the answer
        return depth

    async def _look(self, source: str, before: bytes = b"") -> QueueDepth:
        if self._link.tap is None:
            if before:
                self._link.write(before)
            # Any answer would do: what was written before on this channel is done then; the look goes by another.
            await ask(self._channel.basic_qos(prefetch_count=self._prefetch or 0))
            depth = await look(self._link, source)
            if depth is None:
                raise TransportError(f"{source} was deleted.")
            return depth
        answer: asyncio.Future[QueueDepth] = asyncio.get_running_loop().create_future()
        self._looks.append(answer)
        self._link.write(before + wire.look(self._channel.number, source))
        return await answer

    def _check_alive(self) -> None:
        if not self.is_alive:
            raise TransportError("The channel is gone.")

    # -- from the tap

    def on_declared(self, method: bytes) -> None:
        """See `Sink`: the answer to the oldest look."""
        if not self.is_alive:
            return  # given up before the socket was closed
        answer = self._looks.popleft()
        if not answer.done():
            answer.set_result(QueueDepth(*wire.read_declared(method)))

    def on_prefetch_set(self) -> bool:
        """Ours: nothing else is asked of this channel."""
        return True

    def on_closing(self, reason: str) -> None:
        """See `Sink`."""
        super().on_closing(reason)
        while self._looks:
            answer = self._looks.popleft()
            if not answer.done():
                answer.set_exception(TransportError(f"The channel is gone: {reason}"))
