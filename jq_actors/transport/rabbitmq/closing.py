"""The deletion of a lane that nobody uses any more.

The broker deletes what is unused and empty, and takes what somebody has unacked in hand for nothing: it is lost. So a
lane is *shielded* first. A second consumer stands behind that of the worker which holds the lane's token, on a channel
that takes nothing. When the first is cancelled, the second is the single active one: nobody has anything in hand, what
comes waits and is seen by ``if-empty``, and who begins to consume stands behind the shield and gets nothing.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import aiormq
from aiormq.abc import AbstractChannel, DeliveredMessage

from jq_actors.errors import TransportError

from .link import Link, ask


class Shields:
    """Consumers that take nothing, on one channel of each connection."""

    def __init__(self) -> None:
        self._link: Link | None = None
        self._channel: AbstractChannel | None = None
        self._opening = asyncio.Lock()
        self._tags = itertools.count(1)

    @asynccontextmanager
    async def over(self, link: Link, name: str) -> AsyncIterator[None]:
        """Shield the lane that the broker calls ``name``; it may be deleted meanwhile.

        Raises:
          TransportError: it could not be done.
        """
        channel = await self._channel_of(link)
        tag = f"shield.{next(self._tags)}"
        await ask(channel.basic_consume(name, _never, consumer_tag=tag))
        try:
            yield
        finally:
            if tag in cast(aiormq.Channel, channel).consumers:  # else the lane is deleted, and the broker has ended it
                await ask(channel.basic_cancel(tag))

    async def _channel_of(self, link: Link) -> AbstractChannel:
        async with self._opening:
            if self._channel is None or self._channel.is_closed or self._link is not link:
                self._channel, self._link = await _that_takes_nothing(link), link
            return self._channel


async def _that_takes_nothing(link: Link) -> AbstractChannel:
    """A channel that may have one message unacked in all, and has it."""
    channel, has_one = await link.open_channel(), asyncio.Event()

    async def keep(message: DeliveredMessage) -> None:
        has_one.set()

    await ask(channel.basic_qos(prefetch_count=1, global_=True))
    own = await ask(channel.queue_declare("", exclusive=True))
    if own.queue is None:
        raise TransportError("The broker gave no name to a queue.")
    await ask(channel.basic_publish(b"", routing_key=own.queue))
    await ask(channel.basic_consume(own.queue, keep))
    await has_one.wait()
    return channel


async def _never(message: DeliveredMessage) -> None:
    raise AssertionError("A shield takes nothing.")
