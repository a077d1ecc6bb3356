"""One open connection to the broker, until it breaks: channels, requests, and writing past aiormq's queue."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiormq
from aiormq.abc import AbstractChannel, ChannelFrame
from pamqp.common import FieldTable
from yarl import URL

from jq_actors.config.loading import BrokerConfig, mask_url
from jq_actors.errors import TransportError

from .aiormq_logging import quietly
from .channel_numbers import ChannelNumbers
from .frames import FrameTap, TapFactory, why_not_tapped
from .queue_counts import Looks

CONNECT_TIMEOUT = 15.0
"""Seconds for the socket, TLS and the AMQP handshake together."""
REQUEST_TIMEOUT = 30.0
"""Seconds that one answer on a throw-away channel may take."""
CLOSE_TIMEOUT = 5.0
FRAME = 131_072
"""Bytes of our largest frame where the server sets no limit."""
THROW_AWAY_CHANNELS = 2
"""Most of them open at once, on each connection."""

T = TypeVar("T")


class RefusedError(TransportError):
    """The broker answered a request by closing its channel. ``code`` is AMQP's reply code."""

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        super().__init__(text)

    @property
    def is_missing(self) -> bool:
        """Whether it says that there is no such queue or exchange; see `says_missing`."""
        return says_missing(str(self))


def says_missing(reply: str) -> bool:
    """Whether the broker's words say that there is no such queue or exchange.

    The same code, 404, comes when its node is down, or when its process has crashed: then it may be there, and full.
    """
    return reply.startswith("NOT_FOUND - no ")


class _Connection(aiormq.Connection):
    """aiormq's, which gives a silent connection up after two heartbeats, not three."""

    HEARTBEAT_GRACE_MULTIPLIER = 2
    FRAME_BUFFER_SIZE = 0
    """No bound: what aiormq finds no room for, it drops, such as the answer that frees a channel's number."""

    async def connect(self, client_properties: FieldTable | None = None) -> bool:
        """aiormq's; and a ``frame_max`` of 0, which means no limit, is not taken for a size by anybody."""
        is_connected = bool(await super().connect(client_properties))
        self.connection_tune.frame_max = self.connection_tune.frame_max or FRAME
        return is_connected


class Link:
    """An open connection. Raises nothing but `TransportError`, TimeoutError and cancellation."""

    def __init__(self, connection: aiormq.Connection, tap: FrameTap | None) -> None:
        self.tap = tap
        """Where hot frames are taken out of the stream; ``None``: read by aiormq alone."""
        self.looks = None if tap is None else Looks(tap, self.open_channel)
        """Quick looks at queues; ``None``: aiormq alone can look."""
        self._connection = connection
        self._closing = connection.closing
        self._numbers = ChannelNumbers(connection.connection_tune.channel_max or 0, connection.channels)
        self._spare: list[AbstractChannel] = []
        self._outbox: list[bytes] = []
        self._is_posting = False
        self._places = asyncio.Semaphore(THROW_AWAY_CHANNELS)
        self._given_up = ""
        self._ending: asyncio.Task[None] | None = None

    @property
    def version(self) -> tuple[int, ...]:
        """The server's version, such as ``(3, 10, 8)``; empty when it gives none."""
        found = re.match(r"[0-9]+(\.[0-9]+)*", str(self._connection.server_properties.get("version")))
        return tuple(map(int, found[0].split("."))) if found else ()

    @property
    def server(self) -> str:
        """Product, version and address, for people."""
        about = self._connection.server_properties
        product, version = str(about.get("product")), str(about.get("version"))
        return f"{product} {version} at {mask_url(str(self._connection.url.with_query(None)))}"

    @property
    def frame_max(self) -> int:
        """The largest frame that both sides take, in bytes."""
        return self._connection.connection_tune.frame_max

    @property
    def is_lost(self) -> bool:
        """Whether it is known to be gone."""
        return self._connection.is_closed or (self.tap is not None and self.tap.lost.done())

    async def lost(self) -> None:
        """Wait until the connection is gone."""
        watched: list[asyncio.Future[Any]] = [self._closing]
        if self.tap is not None:
            # The socket tells at once, and also when aiormq should fail to notice.
            watched.append(self.tap.lost)
        await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)

    def give_up(self, reason: str) -> None:
        """Drop the connection, which is of no use any more; `lost` and `close` tell of it."""
        self._given_up = reason
        if self.tap is not None:
            self.tap.abort()
        else:
            self._ending = asyncio.get_running_loop().create_task(self._connection.close())

    async def close(self) -> str:
        """Close it, in order if it stands, after what was written. Returns why it was lost, if it was."""
        with quietly():
            if self.tap is None and not self.is_lost:
                await asyncio.wait([asyncio.ensure_future(self._flush())], timeout=CLOSE_TIMEOUT)
            closing = asyncio.ensure_future(self._connection.close())
        await asyncio.wait([closing], timeout=CLOSE_TIMEOUT)
        if self.tap is not None:
            self.tap.abort()  # what aiormq may still wait for ends with the socket
            if self.tap.close_text:
                return self.tap.close_text
        if self._given_up:
            return self._given_up
        if self._connection.is_connection_was_stuck:
            return "nothing came for two heartbeats"
        return closing_reason(self._closing)

    @property
    def has_room(self) -> bool:
        """Whether the server allows a further channel for what could also share one."""
        return self._numbers.have_room

    async def open_channel(self, *, confirms: bool = False) -> AbstractChannel:
        """A channel of one's own.

        Raises:
          ChannelsExhaustedError: the server allows no more of them.
          TransportError: any other reason, also no answer within `REQUEST_TIMEOUT`.
        """
        with self._numbers.next() as number:
            opening = self._connection.channel(number, publisher_confirms=confirms, timeout=REQUEST_TIMEOUT)
            return await ask(opening)

    @asynccontextmanager
    async def throw_away_channel(self) -> AsyncIterator[AbstractChannel]:
        """A channel for requests that may be refused, time out or be cancelled: then it is dropped, nothing
        else.

        Kept for the next one when all went well. For at most `REQUEST_TIMEOUT`.
        """
        async with self._places, asyncio.timeout(REQUEST_TIMEOUT):
            channel = self._spare.pop() if self._spare else await self.open_channel()
            yield channel
        if not channel.is_closed:
            self._spare.append(channel)

    def write(self, frames: bytes) -> None:
        """Send ready ``frames``, in the order of the calls; only for channels that are open."""
        if self.tap is not None:
            self.tap.write(frames)
            return
        self._outbox.append(frames)
        if not self._is_posting:
            self._is_posting = True
            self._connection.create_task(self._post())

    async def _post(self) -> None:
        # One at a time: of several tasks that wait for room in aiormq's queue, a later one may come first.
        while self._outbox:
            frames, self._outbox = b"".join(self._outbox), []
            await self._connection.write_queue.put(ChannelFrame(payload=frames, should_close=False))
        self._is_posting = False

    async def _flush(self) -> None:
        # aiormq closes ahead of what is in its queue.
        await self._post()
        sent = asyncio.get_running_loop().create_future()
        await self._connection.write_queue.put(ChannelFrame(b"", should_close=False, drain_future=sent))
        await sent


async def open_link(config: BrokerConfig, role: str) -> Link:
    """Connect to the broker of ``config``; ``role`` is part of the connection's name on the server.

    Raises:
      TransportError: it cannot be reached in time, or refuses us.
    """
    factory = TapFactory() if why_not_tapped() is None else None
    name = f"jq_actors {role} {socket.gethostname()}:{os.getpid()}"
    url = URL(config.url).update_query(heartbeat=str(int(config.heartbeat.total_seconds())))
    connection = _Connection(url, transport_factory=factory, client_properties={"connection_name": name})
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            await ask(connection.connect())
    except TimeoutError:
        raise TransportError(f"{mask_url(config.url)} did not answer within {CONNECT_TIMEOUT:g} s.") from None
    except TransportError as error:
        # Of a refusal after the login, such as a missing vhost, aiormq tells only the kind of the frame.
        said = factory.tap.close_text if factory is not None and factory.tap is not None else ""
        raise TransportError(said or str(error)) from error
    return Link(connection, factory.tap if factory is not None else None)


async def ask(request: Awaitable[T]) -> T:
    """The answer to a request of aiormq's.

    Raises:
      RefusedError: the broker closed the channel with one of AMQP's codes for a refusal (403 to 406).
      TransportError: the connection or the channel is gone, or went meanwhile.
    """
    try:
        with quietly():
            return await request
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # aiormq ends its pending requests so when a connection is closed; nobody has cancelled us.
        raise TransportError("The connection was closed meanwhile.") from None
    except tuple(_REFUSALS) as error:
        raise RefusedError(_REFUSALS[type(error)], str(error)) from error
    except Exception as error:  # whatever aiormq gives: its own errors, OSError, RuntimeError, bare Exception
        raise TransportError(str(error) or repr(error)) from error


_REFUSALS: dict[type[BaseException], int] = {
    aiormq.ChannelAccessRefused: 403,
    aiormq.ChannelNotFoundEntity: 404,
    aiormq.ChannelLockedResource: 405,
    aiormq.ChannelPreconditionFailed: 406,
}


def closing_reason(closing: asyncio.Future[Any]) -> str:
    """Why aiormq closed what ``closing`` belongs to, a connection or a channel."""
    error = closing.exception() if closing.done() and not closing.cancelled() else None
    # aiormq sets a CancelledError for what was closed without a reason from the broker.
    return str(error or "") or "the connection was lost"
