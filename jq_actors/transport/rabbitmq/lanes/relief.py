"""Giving back to a lane in its order, although others may consume it at any moment.

When a consumer is cancelled the next one gets what is ready, before what the first had in hand is given back, and that
would be overtaken. So a *relief* takes the place behind ours before it is cancelled. It takes one message, which nobody
works on, and leaves with its channel: that the broker does in one step, which puts the message back to its place, makes
the next consumer the active one and brings it what is first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiormq.abc import DeliveredMessage

from jq_actors.transport.rabbitmq.amqp.link import Link, ask

AT_ONCE = 4
"""Reliefs on a connection at the same time: each is a channel."""


class Reliefs:
    """Consumers that stand in while others give back."""

    def __init__(self) -> None:
        self._at_once = asyncio.Semaphore(AT_ONCE)

    @asynccontextmanager
    async def of(self, link: Link, name: str) -> AsyncIterator[None]:
        """Stand behind the consumers of the lane that the broker calls ``name``, and leave in the end.

        Raises:
          TransportError: it could not be done.
        """
        async with self._at_once:
            channel = await link.open_channel()
            try:
                await ask(channel.basic_qos(prefetch_count=1))
                await ask(channel.basic_consume(name, _keep))
                yield
            finally:
                if not channel.is_closed:
                    await ask(channel.close())


async def _keep(message: DeliveredMessage) -> None:
    """It goes back with the channel."""
