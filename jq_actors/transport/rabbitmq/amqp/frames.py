"""The tap between the socket and aiormq's reader.

aiormq awaits three times for each frame and makes a task for each delivery. The frames of the hot path (deliveries,
confirms, returns, queue counts) on channels with a `Sink` are taken out of the stream while whole socket buffers are
parsed, and reach the sink by a plain call. All other frames go on to aiormq's own reader untouched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from . import wire

WRITE_AHEAD = 256 * 1024
"""Bytes that may wait for the socket before `FrameTap.writable` turns false."""

_ALIVE_EVERY = 1.0
"""Seconds between two signs of life to aiormq, which counts only the frames that it sees."""


class Sink:
    """Takes the hot frames of one channel, on the I/O loop and in the order of the frames.

    A subclass overrides what can arrive on its channel.
    """

    def on_deliver(self, method: bytes, header: bytes, body: bytes) -> None:
        """A complete delivery; ``method`` is without its class and method, ``header`` is the payload."""
        raise AssertionError("Nothing is consumed on this channel.")

    def on_consumer_cancelled(self, consumer: bytes) -> None:
        """The broker ended the consumer with this tag. aiormq sees the frame, too, and answers it."""

    def on_return(self, method: bytes, header: bytes) -> None:
        """A message that could not be routed came back; its confirm follows."""
        raise AssertionError("Nothing is published on this channel.")

    def on_confirm(self, tag: int, *, multiple: bool, taken: bool) -> None:
        """The broker took (or refused) the publish ``tag``, with ``multiple`` all up to it."""
        raise AssertionError("Nothing is published on this channel.")

    def on_declared(self, method: bytes) -> None:
        """The answer to a declare; ``method`` is without its class and method."""
        raise AssertionError("Nothing is declared on this channel.")

    def on_prefetch_set(self) -> bool:
        """The answer to a ``basic.qos``; returns whether the sink itself has asked, and not aio-pika."""
        return False

    def on_closing(self, reason: str, code: int = 0) -> None:
        """The channel is gone: nothing may be written to it any more. aiormq gets to know it later.

        ``code`` is AMQP's reply code if the broker has closed the channel. This is also called when the broker confirms
        that we have closed it.
        """
        raise NotImplementedError


class FrameTap(asyncio.StreamReaderProtocol):
    """The protocol of one connection: takes the sinks' frames out of the stream, and writes for them.

    The tap is the only owner of the sinks. One goes when the broker closes its channel, or confirms that we have, and
    only after that frame the number can be another channel's: nobody else removes a sink, least of all by its number.
    """

    def __init__(self, reader: asyncio.StreamReader, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(reader, loop=loop)
        self.lost: asyncio.Future[None] = loop.create_future()
        """Done as soon as the socket is gone."""
        self.writable = True
        """Whether more should be written now. `on_writable` is called when that turns true again."""
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
        """Give the hot frames of ``channel``, which was just opened, to ``sink``."""
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
        """Report it to the sinks, then to aiormq."""
        if not self.lost.done():
            self.lost.set_result(None)
        channels, self._channels = self._channels, {}
        for content in channels.values():
            content.sink.on_closing("the connection was lost")
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
            # A server that refuses our protocol answers with its own header, which is not a frame.
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
        """Feed the sinks from ``data``, keep an incomplete last frame, and return the frames that no sink took."""
        passed: list[bytes] = []
        at, size = 0, len(data)
        while size - at >= wire.OVERHEAD:
            kind, channel, length = wire.FRAME_START.unpack_from(data, at)
            end = at + wire.OVERHEAD + length
            if end > size:
                break
            if data[end - 1] != wire.FRAME_END:
                # aiormq finds the same fault, and ends the connection.
                passed.append(data[at:])
                self._raw, at = True, size
                break
            start = at + wire.FRAME_START.size
            content = self._channels.get(channel)
            if content is None or not content.take(kind, data, start, end - 1):
                passed.append(data[at:end])
                if kind == wire.METHOD:
                    self._notice(channel, data[start : start + 4], data[start + 4 : end - 1])
            at = end
        self._rest = data[at:]
        return b"".join(passed)

    def _notice(self, channel: int, method: bytes, arguments: bytes) -> None:
        """Act on a method that aiormq handles too, but later than we have to know of it, or without reporting it."""
        if method == wire.CHANNEL_CLOSE:
            self._end(channel, wire.read_reply_text(arguments), wire.read_reply_code(arguments))
        elif method == wire.CHANNEL_CLOSED:
            self._end(channel, "closed by us")
        elif method == wire.CONSUMER_CANCELLED and channel in self._channels:
            self._channels[channel].sink.on_consumer_cancelled(wire.read_consumer(arguments))
        elif method == wire.CONNECTION_CLOSE:
            self.close_text = wire.read_reply_text(arguments)
        elif channel == 0 and method in (wire.BLOCKED, wire.UNBLOCKED):
            self.on_blocked(method == wire.BLOCKED)

    def _end(self, channel: int, reason: str, code: int = 0) -> None:
        content = self._channels.pop(channel, None)
        if content is not None:
            content.sink.on_closing(reason, code)


class _Content:
    """Puts the hot frames of one channel together to deliveries and returns."""

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
