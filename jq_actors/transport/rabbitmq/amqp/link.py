"""One open connection to the broker, until it breaks: its channels, its cold requests, and its hot frames."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aio_pika.abc import AbstractChannel
from yarl import URL

from jq_actors.config.loading import BrokerConfig, mask_url
from jq_actors.errors import TransportError

from .channel_numbers import ChannelNumbers
from .client import TappedConnection, ask, number_of
from .client_logging import quietly
from .frames import Sink
from .queue_counts import QueueCounts
from .versions import check_versions

CONNECT_TIMEOUT = 15.0
"""Seconds for the socket, TLS and the AMQP handshake together."""
REQUEST_TIMEOUT = 30.0
"""Seconds that one answer on a throw-away channel may take."""
CLOSE_TIMEOUT = 5.0
THROW_AWAY_CHANNELS = 2
"""How many of them may be open at once, on each connection."""


class Link:
    """An open connection. Raises nothing but `TransportError`, TimeoutError and cancellation."""

    def __init__(self, connection: TappedConnection) -> None:
        self.tap = connection.tap
        """Reads and writes the hot frames."""
        self.counts = QueueCounts(self.tap, self.open_channel)
        """Asks for queue counts, many at a time."""
        self._connection = connection
        self._closing = connection.underlay.closing
        self.numbers = ChannelNumbers(connection.channel_max, connection.numbers_in_use)
        """The numbers of its channels."""
        self.frame_max = connection.frame_max
        """The largest frame that both sides accept, in bytes."""
        self._spare: list[AbstractChannel] = []
        self._throw_away = asyncio.Semaphore(THROW_AWAY_CHANNELS)
        self._why_aborted = ""

    @property
    def version(self) -> tuple[int, ...]:
        """The server's version, such as ``(3, 10, 8)``; empty when it gives none."""
        found = re.match(r"[0-9]+(\.[0-9]+)*", str(self._about("version")))
        return tuple(map(int, found[0].split("."))) if found else ()

    @property
    def server(self) -> str:
        """Product, version and address, for people."""
        address = mask_url(str(self._connection.url.with_query(None)))
        return f"{self._about('product')} {self._about('version')} at {address}"

    @property
    def is_lost(self) -> bool:
        """Whether the connection is known to be gone."""
        return self._closing.done() or self.tap.lost.done()

    async def lost(self) -> None:
        """Wait until the connection is gone."""
        # The socket reports it at once, and also if aiormq should fail to notice.
        await asyncio.wait([self._closing, self.tap.lost], return_when=asyncio.FIRST_COMPLETED)

    def abort(self, reason: str) -> None:
        """Drop the connection, which is of no use any more. `close` returns ``reason``."""
        self._why_aborted = reason
        self.tap.abort()

    async def close(self) -> str:
        """Close the connection, after what was written to it. Returns why it was lost, if it was."""
        with quietly():
            closing = asyncio.ensure_future(self._connection.close())
        await asyncio.wait([closing], timeout=CLOSE_TIMEOUT)
        self.tap.abort()  # whatever aiormq may still wait for ends with the socket
        return self.tap.close_text or self._why_aborted or self._connection.why_closed or "the connection was lost"

    async def open_channel(self, *, confirms: bool = False) -> AbstractChannel:
        """Open a channel for the caller alone.

        Raises:
          ChannelsExhaustedError: the server allows no more of them.
          TransportError: any other reason, also no answer within `REQUEST_TIMEOUT`.
        """
        with self.numbers.next() as number:
            return await ask(self._open_channel(number, confirms))

    def attach(self, channel: AbstractChannel, sink: Sink) -> int:
        """Give the hot frames of ``channel``, which was just opened, to ``sink``; returns the channel's number."""
        number = number_of(channel)
        self.tap.attach(number, sink)
        return number

    @asynccontextmanager
    async def throw_away_channel(self) -> AsyncIterator[AbstractChannel]:
        """A channel for requests that may be refused, time out or be cancelled, which ends this channel only.

        It is kept for the next caller when all went well. A caller has it for at most `REQUEST_TIMEOUT`.
        """
        async with self._throw_away, asyncio.timeout(REQUEST_TIMEOUT):
            channel = self._spare.pop() if self._spare else await self.open_channel()
            yield channel
        if not channel.is_closed:
            self._spare.append(channel)

    def write(self, frames: bytes) -> None:
        """Send ready ``frames``, in the order of the calls; only for channels that are open."""
        self.tap.write(frames)

    async def _open_channel(self, number: int, confirms: bool) -> AbstractChannel:
        async with asyncio.timeout(REQUEST_TIMEOUT):  # aio-pika's own timeout has no effect
            channel = self._connection.channel(number, publisher_confirms=confirms)
            await channel.initialize()
            return channel

    def _about(self, what: str) -> object:
        return self._connection.underlay.server_properties.get(what)


async def open_link(config: BrokerConfig, role: str) -> Link:
    """Connect to the broker of ``config``; ``role`` is part of the connection's name on the server.

    Raises:
      ClientVersionError: see `check_versions`.
      TransportError: the broker cannot be reached in time, or refuses us.
    """
    check_versions()
    name = f"jq_actors {role} {socket.gethostname()}:{os.getpid()}"
    url = URL(config.url).update_query(heartbeat=str(int(config.heartbeat.total_seconds())))
    connection = TappedConnection(url, name)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            await ask(connection.connect())
    except TimeoutError:
        raise TransportError(f"{mask_url(config.url)} did not answer within {CONNECT_TIMEOUT:g} s.") from None
    except TransportError as error:
        # After the login, aiormq names only the kind of the frame that refuses us, for a missing vhost for example.
        raise TransportError(connection.close_text or str(error)) from error
    return Link(connection)
