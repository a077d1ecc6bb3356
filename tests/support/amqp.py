"""Looking at a broker from outside of the code under test: depths, and what a foreign program may do to it.

Spoken directly with pamqp's frames on a plain socket: it works with and without a running loop, and shares
nothing with the connections that are tested.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import unquote, urlsplit

from pamqp import body as bodies
from pamqp import commands, frame, header
from pamqp.base import Frame
from pamqp.heartbeat import Heartbeat

TIMEOUT = 10.0
"""Seconds that one answer may take by default."""

_FRAME = 131072

F = TypeVar("F")


class RefusedError(ConnectionError):
    """The broker closed the channel or the connection; ``code`` is AMQP's reply code."""

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        super().__init__(f"{code} {text}")


@dataclass(frozen=True, slots=True)
class Got:
    """A message taken from a queue."""

    body: bytes
    properties: commands.Basic.Properties


class Probe:
    """One plain AMQP connection with one channel in confirm mode. Blocking; every answer has a deadline."""

    def __init__(self, url: str, timeout: float = TIMEOUT) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname or "localhost", parts.port or 5672), timeout)
        self._input = self._socket.makefile("rb")
        try:
            self._handshake(parts.username or "guest", parts.password or "guest", unquote(parts.path[1:]) or "/")
            self._open_channel()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connection."""
        self._input.close()
        self._socket.close()

    def depth(self, queue: str) -> tuple[int, int] | None:
        """(ready messages, consumers) of ``queue``; ``None`` when it does not exist."""
        try:
            answer = self._call(commands.Queue.Declare(queue=queue, passive=True), commands.Queue.DeclareOk)
        except RefusedError as error:
            if error.code != 404:
                raise
            return None
        return answer.message_count or 0, answer.consumer_count or 0

    def declare(self, queue: str, arguments: dict[str, Any] | None = None, *, durable: bool = True) -> None:
        """Declare ``queue``; raises `RefusedError` 406 when it exists with other arguments."""
        declare = commands.Queue.Declare(queue=queue, durable=durable, arguments=arguments or {})
        self._call(declare, commands.Queue.DeclareOk)

    def delete(self, queue: str) -> None:
        """Delete ``queue`` with its messages. It need not exist."""
        self._call(commands.Queue.Delete(queue=queue), commands.Queue.DeleteOk)

    def publish(self, queue: str, body: bytes, properties: commands.Basic.Properties | None = None) -> None:
        """Publish to ``queue`` by the default exchange, and wait for the confirm."""
        self._send(1, commands.Basic.Publish(exchange="", routing_key=queue))
        content = header.ContentHeader(0, len(body), properties or commands.Basic.Properties(delivery_mode=2))
        self._socket.sendall(frame.marshal(content, 1))
        for start in range(0, len(body), _FRAME // 2):
            self._socket.sendall(frame.marshal(bodies.ContentBody(body[start : start + _FRAME // 2]), 1))
        self._expect(commands.Basic.Ack)

    def get(self, queue: str) -> Got | None:
        """Take one message from ``queue``; ``None`` if it is empty."""
        self._send(1, commands.Basic.Get(queue=queue, no_ack=True))
        if isinstance(self._expect(commands.Basic.GetOk, commands.Basic.GetEmpty), commands.Basic.GetEmpty):
            return None
        content = self._expect(header.ContentHeader)
        body = b""
        while len(body) < content.body_size:
            body += self._expect(bodies.ContentBody).value
        return Got(body, content.properties)

    def consume(self, queue: str) -> None:
        """Consume ``queue`` with a prefetch of one, and never ack."""
        self._call(commands.Basic.Qos(prefetch_count=1), commands.Basic.QosOk)
        self._call(commands.Basic.Consume(queue=queue), commands.Basic.ConsumeOk)

    def wait_closed(self) -> None:
        """Read on until the broker closes the channel or the connection, and raise its `RefusedError`."""
        while True:
            self._expect(object)

    def _handshake(self, user: str, password: str, vhost: str) -> None:
        self._socket.sendall(b"AMQP\x00\x00\x09\x01")
        self._expect(commands.Connection.Start)
        response = f"\0{unquote(user)}\0{unquote(password)}"
        self._send(0, commands.Connection.StartOk(client_properties={}, mechanism="PLAIN", response=response))
        self._expect(commands.Connection.Tune)
        self._send(0, commands.Connection.TuneOk(channel_max=1, frame_max=_FRAME, heartbeat=0))
        self._send(0, commands.Connection.Open(virtual_host=vhost))
        self._expect(commands.Connection.OpenOk)

    def _open_channel(self) -> None:
        self._call(commands.Channel.Open(), commands.Channel.OpenOk)
        self._call(commands.Confirm.Select(), commands.Confirm.SelectOk)

    def _call(self, request: Frame, answer: type[F]) -> F:
        self._send(1, request)
        return self._expect(answer)

    def _send(self, channel: int, request: Frame) -> None:
        self._socket.sendall(frame.marshal(request, channel))

    def _expect(self, *answers: type[F]) -> F:
        while True:
            received = self._receive()
            match received:
                case commands.Channel.Close():
                    # Open a new channel at once: a refusal is an answer, and must not end the probe.
                    self._send(1, commands.Channel.CloseOk())
                    self._open_channel()
                    raise RefusedError(received.reply_code or 0, received.reply_text)
                case commands.Connection.Close():
                    raise RefusedError(received.reply_code or 0, received.reply_text)
                case Heartbeat():
                    continue
            if isinstance(received, answers):
                return received
            raise ConnectionError(f"Expected {answers}, got {received!r}.")

    def _receive(self) -> object:
        start = self._read(7)
        rest = self._read(int.from_bytes(start[3:7], "big") + 1)
        return frame.unmarshal(start + rest)[2]

    def _read(self, size: int) -> bytes:
        data = self._input.read(size)
        if len(data) < size:
            raise ConnectionError("The broker closed the connection.")
        return data
