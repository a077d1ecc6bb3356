"""aio-pika's connection with our own reader in it.

This is the only module that knows what of aiormq, the library below aio-pika, we lean on:

- the ``transport_factory``, which puts `frames.FrameTap` between the socket and aiormq's reader;
- how long silence is borne, how much may wait to be written, and a ``frame_max`` of 0: aio-pika makes aiormq's
  connection by itself and passes none of these on;
- which channel numbers are in use, and what was agreed with the server;
- the exceptions by which the broker's refusals arrive, for aio-pika exports two of four.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection
from functools import cached_property
from typing import Any, TypeVar

import aio_pika
import aiormq
from aio_pika.abc import AbstractChannel, TimeoutType, UnderlayConnection
from pamqp.common import FieldTable
from yarl import URL

from jq_actors.errors import TransportError

from .client_logging import quietly
from .frames import WRITE_AHEAD, FrameTap

FRAME = 131_072
"""Bytes of our largest frame where the server sets no limit."""

T = TypeVar("T")

_REFUSALS: dict[type[BaseException], int] = {
    aiormq.ChannelAccessRefused: 403,
    aiormq.ChannelNotFoundEntity: 404,
    aiormq.ChannelLockedResource: 405,
    aiormq.ChannelPreconditionFailed: 406,
}


class RefusedError(TransportError):
    """The broker answered a request by closing its channel. ``code`` is AMQP's reply code."""

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        super().__init__(text)

    @property
    def is_missing(self) -> bool:
        """Whether the broker says that there is no such queue or exchange; see `says_missing`."""
        return says_missing(str(self))


def says_missing(reply: str) -> bool:
    """Whether ``reply`` says that there is no such queue or exchange.

    The broker uses the same code, 404, when the node of a queue is down or its process has crashed. Such a queue may
    exist, and be full.
    """
    return reply.startswith("NOT_FOUND - no ")


async def ask(request: Awaitable[T]) -> T:
    """Await ``request``, a call of aio-pika's, and return its result.

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
        # aiormq ends its pending requests this way when a connection is closed. Nobody has cancelled us.
        raise TransportError("The connection was closed meanwhile.") from None
    except Exception as error:  # the client raises its own errors, OSError, RuntimeError and a bare Exception
        raise refusal(_REFUSALS.get(type(error), 0), str(error) or repr(error)) from error


def refusal(code: int, text: str) -> TransportError:
    """The error for a channel that the broker has closed with ``code``, or that is gone for another reason."""
    return RefusedError(code, text) if code in _REFUSALS.values() else TransportError(text)


async def unless_missing(request: Awaitable[T]) -> T | None:
    """Await ``request``; ``None`` when the broker says that there is no such queue or exchange.

    Raises:
      RefusedError: any other refusal.
    """
    try:
        return await request
    except RefusedError as error:
        if error.is_missing:
            return None
        raise


def number_of(channel: AbstractChannel) -> int:
    """The number of ``channel``, which is open."""
    assert channel.number is not None
    return channel.number


class _Channel(aio_pika.Channel):
    async def _on_close(self, closing: asyncio.Future[Any]) -> BaseException | None:
        # aio-pika leaves its callback on the connection when the broker has closed the channel: a kilobyte each time
        # that the broker refuses something.
        error = await super()._on_close(closing)
        if self._channel is not None:
            self._channel.channel.connection.closing.remove_done_callback(self._channel.close_callback)
        return error


class TappedConnection(aio_pika.Connection):
    """A plain connection of aio-pika's whose stream passes through a `FrameTap`."""

    CHANNEL_CLASS = _Channel

    underlay: _AiormqConnection
    """aiormq's connection, once connected. aio-pika itself forgets it when it closes."""

    def __init__(self, url: URL, name: str) -> None:
        super().__init__(url, client_properties={"connection_name": name})
        self._factory = _TapFactory()
        self.kwargs["transport_factory"] = self._factory

    def __del__(self) -> None:
        # aio-pika would start a task that closes the connection, on whatever loop is there: after a fork that of the
        # child, which must not touch the connection of its parent.
        return

    async def connect(self, timeout: TimeoutType = None) -> None:
        """Connect as aio-pika does, but on a connection of aiormq's that is set up for us."""
        self.transport = await _OurUnderlay.connect(self.url, self._on_connection_close, timeout=timeout, **self.kwargs)
        assert isinstance(self.transport.connection, _AiormqConnection)
        self.underlay = self.transport.connection
        await self._on_connected()

    @property
    def tap(self) -> FrameTap:
        """Reads and writes the hot frames; only after the socket was opened."""
        assert self._factory.tap is not None, "the socket is open"
        return self._factory.tap

    @property
    def close_text(self) -> str:
        """Why the broker closed the connection, if it said so; also before `connect` has returned."""
        return "" if self._factory.tap is None else self._factory.tap.close_text

    @property
    def channel_max(self) -> int:
        """How many channels the server allows; 0: no limit."""
        return self.underlay.connection_tune.channel_max or 0

    @property
    def frame_max(self) -> int:
        """The largest frame that both sides accept, in bytes."""
        return self.underlay.connection_tune.frame_max

    @property
    def numbers_in_use(self) -> Collection[int]:
        """The numbers of channels that are open, or whose end the broker has not confirmed: aiormq's own table."""
        return self.underlay.channels

    @property
    def why_closed(self) -> str:
        """The reason of a close that aiormq knows of; empty if it has none."""
        if self.underlay.is_connection_was_stuck:
            return "nothing came for two heartbeats"
        closing = self.underlay.closing
        # aiormq stores an error without a text when it was closed without a reason from the broker.
        return str(closing.exception() or "") if closing.done() and not closing.cancelled() else ""


class _OurUnderlay(UnderlayConnection):
    """Makes the connection of aiormq's that aio-pika's is built on."""

    @classmethod
    async def make_connection(
        cls, url: URL, timeout: TimeoutType = None, **kwargs: Any
    ) -> aiormq.abc.AbstractConnection:
        connection = _AiormqConnection(url, **kwargs)
        await connection.connect()
        return connection


class _AiormqConnection(aiormq.Connection):
    HEARTBEAT_GRACE_MULTIPLIER = 2
    """A silent connection is given up after two heartbeats, not three."""
    FRAME_BUFFER_SIZE = 0
    """No bound: aiormq drops frames that find no room, such as the answer that frees a channel's number."""

    async def connect(self, client_properties: FieldTable | None = None) -> bool:
        """Connect, and replace a ``frame_max`` of 0, which means no limit: everybody else takes it for a size."""
        is_connected = bool(await super().connect(client_properties))
        self.connection_tune.frame_max = self.connection_tune.frame_max or FRAME
        return is_connected

    async def ready(self) -> None:
        """Wait until it is connected, and not for the end of an alarm: that wait survives the connection."""
        await self.connected.wait()

    @cached_property
    def closing(self) -> asyncio.Future[Any]:
        """The same future for everybody.

        aiormq makes one for each call. aio-pika adds a callback to it for each channel, and could not remove that
        from another future: it would stay as long as the connection.
        """
        return super().closing


class _TapFactory(aiormq.TransportFactory):
    """Opens the socket as aiormq does, plain or with TLS, with a `FrameTap` as its protocol."""

    def __init__(self) -> None:
        self.tap: FrameTap | None = None

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect; raises `aiormq.AMQPConnectionError`, as aiormq's own factories do."""
        provider: aiormq.SSLContextProvider = kwargs.pop("ssl_context_provider")
        context = await provider.get_context() if url.scheme == "amqps" else None
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        tap = self.tap = FrameTap(reader, loop)
        address = url.host or "localhost", url.port or 5672
        try:
            transport, _ = await loop.create_connection(lambda: tap, *address, ssl=context, **kwargs)
        except OSError as error:
            raise aiormq.AMQPConnectionError(*error.args) from error
        transport.set_write_buffer_limits(high=WRITE_AHEAD)
        return reader, asyncio.StreamWriter(transport, tap, reader, loop)
