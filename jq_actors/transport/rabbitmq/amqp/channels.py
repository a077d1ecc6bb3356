"""The few channels that many consumers share."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

from jq_actors.events import Events

from .consuming import ConsumingChannel, Told
from .link import Link

C = TypeVar("C", bound=ConsumingChannel)


class Channels(Generic[C]):
    """At most so many consuming channels of one kind on one connection, opened when they are needed.

    Fewer, where the server allows fewer: then more consumers share them.
    """

    def __init__(self, kind: type[C], most: int, told: Told, events: Events) -> None:
        self._kind, self._most, self._told, self._events = kind, most, told, events
        self._open: list[C] = []
        self._opening = asyncio.Lock()

    async def take(self, link: Link, *, alone: bool = False) -> C:
        """A place on the channel with the fewest consumers; ``alone``: on one of its own.

        Raises:
          TransportError: none could be opened.
        """
        async with self._opening:
            alive = [channel for channel in self._open if channel.is_alive]
            channel = min(alive, key=lambda channel: channel.seats, default=None)
            if channel is None or alone or (channel.seats > 0 and len(alive) < self._most and link.has_room):
                channel = self._kind(link, await link.open_channel(), self._told, self._events)
                self._open.append(channel)
            channel.seats += 1
            return channel

    def remove(self, channel: ConsumingChannel) -> bool:
        """Forget ``channel``, which is gone; whether it was one of these."""
        if channel not in self._open:
            return False
        self._open.remove(channel)
        return True

    def lose(self) -> None:
        """The connection is gone."""
        lost, self._open = self._open, []
        for channel in lost:
            channel.on_closing("the connection was lost")

    def refuse(self) -> None:
        """From now on give back what comes."""
        for channel in self._open:
            channel.refuse()

    def flush(self) -> None:
        """Send the acks that are due."""
        for channel in self._open:
            channel.flush()
