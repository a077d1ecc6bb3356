"""The few channels that many consumers share."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

from jq_actors.events import Events

from .consuming import Bury, ConsumerListener, ConsumingChannel
from .link import Link

C = TypeVar("C", bound=ConsumingChannel)


class Channels(Generic[C]):
    """Up to ``most`` consuming channels of one kind on one connection, opened when they are needed.

    Where the server allows fewer, more consumers share them.
    """

    def __init__(self, kind: type[C], most: int, listener: ConsumerListener, bury: Bury, events: Events) -> None:
        self._kind, self._most, self._listener, self._bury, self._events = kind, most, listener, bury, events
        self._open: list[C] = []
        self._opening = asyncio.Lock()

    async def take(self, link: Link, *, alone: bool = False) -> C:
        """The channel for one more consumer: the one with the fewest, or with ``alone`` a new one.

        Raises:
          TransportError: none could be opened.
        """
        async with self._opening:
            alive = [channel for channel in self._open if channel.is_alive]
            channel = min(alive, key=lambda channel: channel.consumers, default=None)
            if (
                channel is None
                or alone
                or (channel.consumers > 0 and len(alive) < self._most and link.numbers.have_spare)
            ):
                channel = self._kind(link, await link.open_channel(), self._listener, self._bury, self._events)
                self._open.append(channel)
            channel.consumers += 1
            return channel

    def remove(self, channel: ConsumingChannel) -> bool:
        """Forget ``channel``, which is gone. Returns whether it was one of these."""
        if channel not in self._open:
            return False
        self._open.remove(channel)
        return True

    def lose(self) -> None:
        """The connection is gone."""
        lost, self._open = self._open, []
        for channel in lost:
            channel.die("the connection was lost")

    def refuse(self) -> None:
        """Return what arrives from now on."""
        for channel in self._open:
            channel.refuse()

    def flush(self) -> None:
        """Send the acks that are due."""
        for channel in self._open:
            channel.flush()
