"""The seam in aiormq: a tap between the socket and its reader.

aiormq awaits three times for each frame and makes a task for each delivery. On channels that register here,
the frames of the hot path (deliveries, confirms, returns, looks) are taken out of the stream while whole socket
buffers are parsed, and handed to a `Sink` by a plain call; all other frames reach aiormq's own reader
untouched. It is put in place by aiormq's public ``transport_factory``; when an aiormq is installed that this
was not checked with, the tap is left out (`why_not_tapped`), and the same channels are fed by aiormq's own
callbacks, slower.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, Protocol, cast

import aiormq
from yarl import URL

from . import wire

CHECKED_AIORMQ = ("7.2.",)
"""Beginnings of the versions of aiormq that the tap was checked with."""
INSTALLED_AIORMQ = version("aiormq")

WRITE_AHEAD = 256 * 1024
"""Bytes that may wait for the socket before `FrameTap.writable` says no."""

_ALIVE_EVERY = 1.0
"""Seconds between two signs of life to aiormq, which counts the frames that it gets to see."""


class Sink(Protocol):
    """A channel whose hot frames are tapped. Called on the I/O loop, in the order of the frames."""

    def on_deliver(self, method: bytes, header: bytes, body: bytes) -> None:
        """A complete delivery; ``method`` is without its class and method, ``header`` is the payload."""
        ...

    def on_return(self, method: bytes, header: bytes) -> None:
        """A message that could not be routed came back; its confirm follows."""
        ...

    def on_confirm(self, tag: int, *, multiple: bool, taken: bool) -> None:
        """The broker took (or refused) the publish ``tag``, with ``multiple`` all up to it."""
        ...

    def on_declared(self, method: bytes) -> None:
        """The answer to a declare; ``method`` is without its class and method."""
        ...

    def on_prefetch_set(self) -> bool:
        """The answer to a ``basic.qos``; whether it was the sink's own, and not aiormq's."""
        ...

    def on_closing(self, reason: str) -> None:
        """The channel is gone: nothing may be written to it any more. aiormq gets to know it later.

        Comes once more, or first, when the broker confirms that we have closed it.
        """
        ...


def why_not_tapped() -> str | None:
    """Why the installed aiormq is read with its stock reader; ``None``: the tap fits it."""
    if INSTALLED_AIORMQ.startswith(CHECKED_AIORMQ):
        return None
    checked = ", ".join(f"{known}x" for known in CHECKED_AIORMQ)
    return f"aiormq {INSTALLED_AIORMQ} is none of those checked ({checked})"


class TapFactory(aiormq.TransportFactory):
    """Opens the socket as aiormq does, with a `FrameTap` in between."""

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


class FrameTap(asyncio.StreamReaderProtocol):
    """The protocol of one connection: takes what sinks want out of the stream, and writes for them."""

    def __init__(self, reader: asyncio.StreamReader, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(reader, loop=loop)
        self.lost: asyncio.Future[None] = loop.create_future()
        """Done as soon as the socket is gone."""
        self.writable = True
        """Whether more should be written now; `on_writable` is called when it turns true again."""
        self.on_writable: Callable[[], None] = lambda: None
        self.on_blocked: Callable[[bool], None] = lambda blocked: None
        """Called with ``connection.blocked`` and ``connection.unblocked``."""
        self.close_text = ""
        """Why the broker closed the connection, if it said so."""
        self._loop_time = loop.time
        self._socket: asyncio.Transport | None = None
        self._channels: dict[int, _Content] = {}
        self._rest = b""
        self._raw: bool | None = None
        self._last_passed = 0.0

    def attach(self, channel: int, sink: Sink) -> None:
        """Tap ``channel`` from now on, until the broker closes it, or confirms that we have, or the connection is lost.

        Nobody else may end it: as soon as the broker has freed the number, it may be another channel's.
        """
        self._channels[channel] = _Content(sink)

    def write(self, frames: bytes) -> None:
        """Send ``frames`` now, not behind what waits in aiormq's queue; only for channels that are open."""
        if self._socket is not None and not self._socket.is_closing():
            self._socket.write(frames)

    def abort(self) -> None:
        """Drop the connection at once."""
        if self._socket is not None:
            self._socket.abort()

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._socket = cast(asyncio.Transport, transport)  # uvloop's is one, by its methods only
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the sinks, then aiormq."""
        channels, self._channels = self._channels, {}
        for content in channels.values():
            content.sink.on_closing("the connection was lost")
        if not self.lost.done():
            self.lost.set_result(None)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The socket does not take more for now."""
        self.writable = False
        super().pause_writing()

    def resume_writing(self) -> None:
        """It does again."""
        super().resume_writing()
        self.writable = True
        self.on_writable()

    def data_received(self, data: bytes) -> None:
        """Split ``data`` into frames; give each to its sink, or pass it on."""
        if self._raw is None:
            # A server that refuses our protocol answers with its own header, which is no frame.
            self._raw = data.startswith(b"AMQP")
        if not self._raw:
            data = self._tapped(self._rest + data if self._rest else data)
        if data:
            self._last_passed = self._loop_time()
            super().data_received(data)
        elif self._loop_time() - self._last_passed > _ALIVE_EVERY:
            self._last_passed = self._loop_time()
            super().data_received(wire.HEARTBEAT)

    def _tapped(self, data: bytes) -> bytes:
        """Feed the sinks from ``data``, keep an incomplete last frame, and return the frames of nobody."""
        passed: list[bytes] = []
        at, size = 0, len(data)
        while size - at >= wire.OVERHEAD:
            kind, channel, length = wire.FRAME_START.unpack_from(data, at)
            end = at + wire.OVERHEAD + length
            if end > size:
                break
            if data[end - 1] != wire.FRAME_END:
                # Not for us to judge: aiormq finds the same fault and ends the connection.
                passed.append(data[at:])
                self._raw, at = True, size
                break
            start = at + wire.FRAME_START.size
            content = self._channels.get(channel)
            if content is None or not content.take(kind, data, start, end - 1):
                passed.append(data[at:end])
                if kind == wire.METHOD:
                    self._look_at(channel, data[start : start + 4], data[start + 4 : end - 1])
            at = end
        self._rest = data[at:]
        return b"".join(passed)

    def _look_at(self, channel: int, method: bytes, arguments: bytes) -> None:
        """Notice a method that aiormq handles, but later than we have to know of it, or without telling."""
        if method == wire.CHANNEL_CLOSE:
            self._end(channel, wire.read_reply_text(arguments))
        elif method == wire.CHANNEL_CLOSED:
            self._end(channel, "closed by us")
        elif method == wire.CONNECTION_CLOSE:
            self.close_text = wire.read_reply_text(arguments)
        elif channel == 0 and method in (wire.BLOCKED, wire.UNBLOCKED):
            self.on_blocked(method == wire.BLOCKED)

    def _end(self, channel: int, reason: str) -> None:
        content = self._channels.pop(channel, None)
        if content is not None:
            content.sink.on_closing(reason)


class _Content:
    """The hot frames of one channel, put together to deliveries and returns."""

    __slots__ = ("_body", "_header", "_is_return", "_left", "_method", "sink")

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self._method: bytes | None = None
        self._is_return = False
        self._header = b""
        self._body: list[bytes] = []
        self._left = 0

    def take(self, kind: int, data: bytes, start: int, end: int) -> bool:
        """Whether the payload ``data[start:end]`` of a frame was for the sink."""
        if kind == wire.METHOD:
            return self._take_method(data[start : start + 4], data[start + 4 : end])
        if self._method is None:
            return False
        if kind == wire.HEADER:
            self._header = data[start:end]
            self._left = int.from_bytes(data[start + 4 : start + 12], "big")
        elif kind == wire.BODY:
            self._body.append(data[start:end])
            self._left -= end - start
        if self._left == 0:
            self._complete(self._method)
        return True

    def _take_method(self, method: bytes, arguments: bytes) -> bool:
        if method == wire.DELIVER or method == wire.RETURN:
            self._method, self._is_return = arguments, method == wire.RETURN
            return True
        if method == wire.ACK or method == wire.NACK:
            tag, multiple = wire.read_confirm(arguments)
            self.sink.on_confirm(tag, multiple=multiple, taken=method == wire.ACK)
            return True
        if method == wire.DECLARED:
            self.sink.on_declared(arguments)
            return True
        return method == wire.PREFETCH_SET and self.sink.on_prefetch_set()

    def _complete(self, method: bytes) -> None:
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._method, self._body = None, []
        if self._is_return:
            self.sink.on_return(method, self._header)
        else:
            self.sink.on_deliver(method, self._header, body)
