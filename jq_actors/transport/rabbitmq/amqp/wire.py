"""The few AMQP 0-9-1 frames of the hot path as bytes: how we build and read them by hand.

aio-pika builds and reads everything else. A test compares each function here with pamqp.
Layout: https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf, §2.3.5 (frames), §4.2 (grammar).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pamqp import commands, encode, frame
from pamqp.exceptions import PAMQPException
from pamqp.header import ContentHeader

METHOD, HEADER, BODY = 1, 2, 3
"""Kinds of frames."""

FRAME_START = struct.Struct(">BHI")
"""Kind, channel, size of what follows; the frame ends with `FRAME_END`."""
FRAME_END = 0xCE
OVERHEAD = FRAME_START.size + 1

HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"

# Class and method, as a method frame begins with them.
DELIVER = struct.pack(">HH", 60, 60)
RETURN = struct.pack(">HH", 60, 50)
ACK = struct.pack(">HH", 60, 80)
NACK = struct.pack(">HH", 60, 120)
CONSUMER_CANCELLED = struct.pack(">HH", 60, 30)
DECLARED = struct.pack(">HH", 50, 11)
PREFETCH_SET = struct.pack(">HH", 60, 11)
CHANNEL_CLOSE = struct.pack(">HH", 20, 40)
CHANNEL_CLOSED = struct.pack(">HH", 20, 41)
CONNECTION_CLOSE = struct.pack(">HH", 10, 50)
BLOCKED = struct.pack(">HH", 10, 60)
UNBLOCKED = struct.pack(">HH", 10, 61)

_MAX_SHORT = 255
_END = bytes([FRAME_END])
_SETTLE = struct.Struct(">BHIHHQBB")
_DECLARE = struct.pack(">HHH", 50, 10, 0)
_PASSIVE, _NO_ARGUMENTS = b"\x01", bytes(4)
_DEPTH = struct.Struct(">II")
_PUBLISH = struct.Struct(">HHH")
_HEADER_START = struct.Struct(">BBHIHHQH")
"""The end of the method frame, then the beginning of the header frame up to its property flags."""
_TAG = struct.Struct(">QB")

_CONTENT_TYPE, _CONTENT_ENCODING, _HEADERS, _DELIVERY_MODE = 0x8000, 0x4000, 0x2000, 0x1000
_PRIORITY, _CORRELATION_ID, _REPLY_TO, _EXPIRATION, _MESSAGE_ID = 0x0800, 0x0400, 0x0200, 0x0100, 0x0080
_OURS = _HEADERS | _DELIVERY_MODE | _PRIORITY | _MESSAGE_ID
_PERSISTENT = 2

GROUP_HEADER = "jq-group"
"""The group of a message in a lane that carries several."""
_GROUP_FIELD = b"\x08jq-groupS"


# -- what we send -----------------------------------------------------------------------------------------


def ack(channel: int, tag: int, *, multiple: bool) -> bytes:
    """``basic.ack`` of ``tag``, or with ``multiple`` of all unacked ones up to it."""
    return _SETTLE.pack(METHOD, channel, 13, 60, 80, tag, multiple, FRAME_END)


def requeue(channel: int, tag: int) -> bytes:
    """``basic.nack`` of ``tag`` that returns it to its queue."""
    return _SETTLE.pack(METHOD, channel, 13, 60, 120, tag, 0b10, FRAME_END)


def prefetch(channel: int, count: int) -> bytes:
    """``basic.qos``: at most ``count`` unacked messages for each consumer that is started later. It has an answer."""
    return frame.marshal(commands.Basic.Qos(prefetch_count=count), channel)


def consume(channel: int, queue: str, consumer: str, arguments: Mapping[str, Any]) -> bytes:
    """``basic.consume`` of ``queue`` with the tag ``consumer``, without an answer."""
    request = commands.Basic.Consume(queue=queue, consumer_tag=consumer, nowait=True, arguments=dict(arguments))
    return frame.marshal(request, channel)


def cancel(channel: int, consumer: str) -> bytes:
    """``basic.cancel`` of ``consumer`` without an answer."""
    return frame.marshal(commands.Basic.Cancel(consumer, nowait=True), channel)


def look(channel: int, queue: str) -> bytes:
    """A passive ``queue.declare`` of ``queue``, which asks how many messages and consumers it has."""
    method = _DECLARE + _short(queue) + _PASSIVE + _NO_ARGUMENTS
    return FRAME_START.pack(METHOD, channel, len(method)) + method + _END


def publish(channel: int, frame_max: int, exchange: str, routing_key: str, properties: bytes, body: bytes) -> bytes:
    """A mandatory ``basic.publish`` with its content.

    ``properties`` is what `properties` made; ``frame_max`` is the size that the connection has agreed on.
    """
    method = _publish_method(exchange, routing_key)
    parts = [
        FRAME_START.pack(METHOD, channel, len(method)),
        method,
        _HEADER_START.pack(FRAME_END, HEADER, channel, 14 + len(properties), 60, 0, len(body), _OURS),
        properties,
        _END,
    ]
    most = frame_max - OVERHEAD
    for start in range(0, len(body), most):
        part = body[start : start + most]
        parts += (FRAME_START.pack(BODY, channel, len(part)), part, _END)
    return b"".join(parts)


def properties(message_id: str, priority: int, headers: Mapping[str, Any]) -> bytes:
    """The property list of a persistent message."""
    return b"".join((table(headers), bytes((_PERSISTENT, priority)), _short(message_id)))


def table(headers: Mapping[str, Any]) -> bytes:
    """A field table. Text values are built here, all others by pamqp."""
    fields = b"".join(_short(name) + _field(value) for name, value in headers.items())
    return len(fields).to_bytes(4, "big") + fields


@lru_cache(maxsize=1024)
def _publish_method(exchange: str, routing_key: str) -> bytes:
    mandatory = b"\x01"
    return _PUBLISH.pack(60, 40, 0) + _short(exchange) + _short(routing_key) + mandatory


def _field(value: Any) -> bytes:
    if isinstance(value, str):
        text = value.encode()
        return b"S" + len(text).to_bytes(4, "big") + text
    return encode.encode_table_value(value)


def _short(text: str) -> bytes:
    data = text.encode()
    if len(data) > _MAX_SHORT:
        raise ValueError(f"{text!r} has {len(data)} bytes; AMQP allows {_MAX_SHORT}.")
    return bytes((len(data),)) + data


# -- what we receive --------------------------------------------------------------------------------------


def read_deliver(method: bytes) -> tuple[bytes, int, bool]:
    """Consumer tag, delivery tag and redelivered of a ``basic.deliver``, given without class and method."""
    end = 1 + method[0]
    tag, redelivered = _TAG.unpack_from(method, end)
    return method[1:end], tag, bool(redelivered & 1)


def read_consumer(method: bytes) -> bytes:
    """The consumer tag of a ``basic.cancel``, given without class and method."""
    return method[1 : 1 + method[0]]


def read_confirm(method: bytes) -> tuple[int, bool]:
    """Delivery tag and multiple of a confirm, given without class and method."""
    tag, bits = _TAG.unpack_from(method)
    return tag, bool(bits & 1)


def read_declared(method: bytes) -> tuple[int, int]:
    """Messages and consumers in the answer to a declare, given without class and method."""
    ready, consumers = _DEPTH.unpack_from(method, 1 + method[0])
    return ready, consumers


def read_reply_code(method: bytes) -> int:
    """The code in the close of a channel, given without class and method."""
    return int.from_bytes(method[:2], "big")


def read_reply_text(method: bytes) -> str:
    """The reason in a return or in the close of a channel or connection, given without class and method."""
    return method[3 : 3 + method[2]].decode(errors="replace")


def read_message_id(header: bytes) -> bytes:
    """The message id in a content header's payload; empty without one."""
    flags = int.from_bytes(header[12:14], "big")
    if not flags & _MESSAGE_ID:
        return b""
    at = 14
    for flag in (_CONTENT_TYPE, _CONTENT_ENCODING):
        if flags & flag:
            at += 1 + header[at]
    if flags & _HEADERS:
        at += 4 + int.from_bytes(header[at : at + 4], "big")
    at += bool(flags & _DELIVERY_MODE) + bool(flags & _PRIORITY)
    for flag in (_CORRELATION_ID, _REPLY_TO, _EXPIRATION):
        if flags & flag:
            at += 1 + header[at]
    return header[at + 1 : at + 1 + header[at]]


def read_group(header: bytes) -> bytes:
    """The group in a content header's payload, written by `properties`; empty without one."""
    at = header.find(_GROUP_FIELD)
    if at < 0:
        return b""
    start = at + len(_GROUP_FIELD) + 4
    return header[start : start + int.from_bytes(header[start - 4 : start], "big")]


def read_headers(header: bytes, most: int) -> dict[str, Any]:
    """The headers in a content header's payload, to be sent again in at most ``most`` bytes.

    Empty if they are larger, or of a foreign message with types that pamqp does not know: its body is what counts.
    """
    content = ContentHeader()
    try:
        content.unmarshal(header)
        headers = dict(content.properties.headers or {})
        return headers if len(table(headers)) <= most else {}
    except (PAMQPException, struct.error, ValueError, TypeError, LookupError):
        return {}


# -- message ids ------------------------------------------------------------------------------------------

_UUID_LENGTH = 36


def dispatch_of(message_id: bytes) -> int:
    """The dispatch number in an id of ours, ``{job id}.{dispatch}.{number}``; 1 for any other id."""
    job_id, _, rest = message_id.partition(b".")
    dispatch, _, number = rest.partition(b".")
    if len(job_id) == _UUID_LENGTH and dispatch.isdigit() and number.isdigit():
        return int(dispatch)
    return 1


def label_of(message_id: bytes) -> str:
    """An id of ours without its last part; any other id as it is."""
    text = message_id.decode("ascii", "ignore")
    label, _, number = text.rpartition(".")
    return label if len(label) > _UUID_LENGTH and number.isdigit() else text


def number_of(message_id: bytes) -> int | None:
    """The last number in the id of a message that came back to its publisher."""
    number = message_id.rpartition(b".")[2]
    return int(number) if number.isdigit() else None
