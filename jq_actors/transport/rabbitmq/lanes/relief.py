"""Returns messages to a lane in their order, although others may consume it at any moment.

When a consumer is cancelled, the next one gets what is ready before the messages of the first are returned, and those
would be overtaken. So a *relief* consumes behind our consumer before that is cancelled. The relief gets one message,
which nobody works on, and leaves by closing its channel. The broker then puts the message back to its place, makes the
next consumer the active one and delivers the first message to it, all in one step.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aio_pika.abc import AbstractIncomingMessage

from jq_actors.transport.rabbitmq.amqp.client import ask
from jq_actors.transport.rabbitmq.amqp.link import Link

AT_ONCE = 4
"""Reliefs on a connection at the same time: each is a channel."""


class Reliefs:
    """Consumers that keep a place in a lane while others return messages to it."""

    def __init__(self) -> None:
        self._at_once = asyncio.Semaphore(AT_ONCE)

    @asynccontextmanager
    async def of(self, link: Link, name: str) -> AsyncIterator[None]:
        """Consume behind the consumers of the broker's queue ``name``, and leave at the end.

        Raises:
          TransportError: it could not be done.
        """
        async with self._at_once:
            channel = await link.open_channel()
            try:
                await ask(channel.set_qos(prefetch_count=1))
                queue = await ask(channel.get_queue(name, ensure=False))
                await ask(queue.consume(_keep))
                yield
            finally:
                if not channel.is_closed:
                    await ask(channel.close())


async def _keep(message: AbstractIncomingMessage) -> None:
    """The message returns with the channel."""
