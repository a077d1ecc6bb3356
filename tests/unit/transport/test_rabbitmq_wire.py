"""The frames that are built and read by hand are those of pamqp, another implementation of the same protocol."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from jq_actors.transport.rabbitmq.amqp import wire

FRAME_MAX = 4096


def unmarshalled(data: bytes) -> list[tuple[int, Any]]:
    """Channel and frame of each frame in ``data``."""
    frames = []
    while data:
        size, channel, value = frame.unmarshal(data)
        frames.append((channel, value))
        data = data[size:]
    return frames


def payload(data: bytes) -> bytes:
    """Of one marshalled frame."""
    return data[wire.FRAME_START.size : -1]


@pytest.mark.parametrize("multiple", [True, False])
def test_ack(multiple: bool) -> None:
    expected = frame.marshal(commands.Basic.Ack(delivery_tag=2**40, multiple=multiple), 7)

    assert wire.ack(7, 2**40, multiple=multiple) == expected


@pytest.mark.parametrize("count", [0, 1, 2**16 - 1])
def test_prefetch(count: int) -> None:
    assert wire.prefetch(7, count) == frame.marshal(commands.Basic.Qos(prefetch_count=count), 7)


def test_the_answer_to_a_prefetch() -> None:
    assert payload(frame.marshal(commands.Basic.QosOk(), 7)) == wire.PREFETCH_SET


@given(queue=st.text("abc.@#-", max_size=255), consumer=st.text("abc.1", max_size=255))
@pytest.mark.parametrize("arguments", [{}, {"x-consumer-timeout": 1_800_000}])
def test_consume(queue: str, consumer: str, arguments: dict[str, Any]) -> None:
    expected = commands.Basic.Consume(queue=queue, consumer_tag=consumer, nowait=True, arguments=arguments)

    assert wire.consume(7, queue, consumer, arguments) == frame.marshal(expected, 7)


@given(queue=st.text("abc.@#-", max_size=255))
def test_look(queue: str) -> None:
    assert wire.look(7, queue) == frame.marshal(commands.Queue.Declare(queue=queue, passive=True), 7)


@given(queue=st.text("abc.", max_size=255), ready=st.integers(0, 2**32 - 1), consumers=st.integers(0, 2**32 - 1))
def test_the_answer_to_a_look(queue: str, ready: int, consumers: int) -> None:
    answer = payload(frame.marshal(commands.Queue.DeclareOk(queue, ready, consumers), 7))

    assert answer[:4] == wire.DECLARED
    assert wire.read_declared(answer[4:]) == (ready, consumers)


def test_requeue() -> None:
    expected = frame.marshal(commands.Basic.Nack(delivery_tag=3, multiple=False, requeue=True), 65535)

    assert wire.requeue(65535, 3) == expected


@given(
    body=st.binary(max_size=3 * FRAME_MAX) | st.integers(FRAME_MAX - 9, FRAME_MAX + 1).map(lambda size: b"x" * size),
    exchange=st.text("abc.-@", max_size=20),
    routing_key=st.text("abc./", max_size=255),
    message_id=st.text("0123456789abcdef-.", max_size=255),
    priority=st.integers(0, 255),
    headers=st.dictionaries(st.text(min_size=1, max_size=60), st.text() | st.integers(0, 2**31) | st.booleans()),
)
def test_publish(
    body: bytes, exchange: str, routing_key: str, message_id: str, priority: int, headers: dict[str, Any]
) -> None:
    properties = wire.properties(message_id, priority, headers)

    data = wire.publish(3, FRAME_MAX, exchange, routing_key, properties, body)

    (_, publish), (_, header), *bodies = frames = unmarshalled(data)
    assert {channel for channel, _ in frames} == {3}
    assert isinstance(publish, commands.Basic.Publish)
    assert (publish.exchange, publish.routing_key, publish.mandatory) == (exchange, routing_key, True)
    assert isinstance(header, ContentHeader)
    assert header.body_size == len(body)
    assert header.properties.message_id == message_id
    assert header.properties.priority == priority
    assert header.properties.delivery_mode == 2
    assert header.properties.headers == headers
    assert b"".join(part.value for _, part in bodies) == body
    assert all(len(part.value) <= FRAME_MAX - wire.OVERHEAD for _, part in bodies)


def test_a_name_that_amqp_cannot_carry_is_refused() -> None:
    with pytest.raises(ValueError, match="256 bytes"):
        wire.publish(1, FRAME_MAX, "", "ä" * 128, b"", b"")


@pytest.mark.parametrize("redelivered", [True, False])
def test_deliver(redelivered: bool) -> None:
    deliver = commands.Basic.Deliver("mail.17", 2**33, redelivered, "some exchange", "key")

    method = payload(frame.marshal(deliver, 1))

    assert method[:4] == wire.DELIVER
    assert wire.read_deliver(method[4:]) == (b"mail.17", 2**33, redelivered)


@pytest.mark.parametrize(("confirm", "kind"), [(commands.Basic.Ack, wire.ACK), (commands.Basic.Nack, wire.NACK)])
@pytest.mark.parametrize("multiple", [True, False])
def test_confirm(confirm: Any, kind: bytes, multiple: bool) -> None:
    method = payload(frame.marshal(confirm(delivery_tag=5, multiple=multiple), 1))

    assert method[:4] == kind
    assert wire.read_confirm(method[4:]) == (5, multiple)


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        (commands.Basic.Return(312, "NO_ROUTE", "", "key"), wire.RETURN),
        (commands.Channel.Close(404, "NO_ROUTE", 60, 40), wire.CHANNEL_CLOSE),
        (commands.Connection.Close(320, "NO_ROUTE", 0, 0), wire.CONNECTION_CLOSE),
    ],
)
def test_the_reason_of_a_return_and_of_a_close(method: Any, kind: bytes) -> None:
    data = payload(frame.marshal(method, 1))

    assert data[:4] == kind
    assert wire.read_reply_text(data[4:]) == "NO_ROUTE"


def test_the_code_of_a_close() -> None:
    assert wire.read_reply_code(payload(frame.marshal(commands.Channel.Close(404, "NO_ROUTE", 60, 40), 1))[4:]) == 404


def test_the_consumer_that_the_broker_ends() -> None:
    data = payload(frame.marshal(commands.Basic.Cancel("mail.1", True), 1))

    assert data[:4] == wire.CONSUMER_CANCELLED
    assert wire.read_consumer(data[4:]) == b"mail.1"


def test_blocked_and_unblocked() -> None:
    assert payload(frame.marshal(commands.Connection.Blocked("low on memory"), 0))[:4] == wire.BLOCKED
    assert payload(frame.marshal(commands.Connection.Unblocked(), 0))[:4] == wire.UNBLOCKED


def test_heartbeat() -> None:
    assert frame.unmarshal(wire.HEARTBEAT)[1:2] == (0,)
    assert type(frame.unmarshal(wire.HEARTBEAT)[2]).__name__ == "Heartbeat"


_properties: dict[str, st.SearchStrategy[Any]] = {
    "content_type": st.text("ab/", min_size=1, max_size=20),
    "content_encoding": st.text("ab", min_size=1, max_size=20),
    "headers": st.dictionaries(st.text("ab", min_size=1), st.integers(0, 9), min_size=1),
    "delivery_mode": st.sampled_from([1, 2]),
    "priority": st.integers(0, 9),
    "correlation_id": st.text("ab", min_size=1, max_size=20),
    "reply_to": st.text("ab", min_size=1, max_size=20),
    "expiration": st.text("12", min_size=1, max_size=5),
    "message_id": st.text("0123456789.-", min_size=1, max_size=80),
    "timestamp": st.just(datetime(2026, 1, 1, tzinfo=UTC)),
    "app_id": st.text("ab", min_size=1, max_size=20),
}


@given(st.fixed_dictionaries({}, optional=_properties))
def test_the_message_id_is_found_whatever_else_is_there(given: dict[str, Any]) -> None:
    header = ContentHeader(0, 5, commands.Basic.Properties(**given))

    found = wire.read_message_id(payload(frame.marshal(header, 1)))

    assert found.decode() == given.get("message_id", "")


UUID = "018f2d1e-0000-7000-8000-000000000001"


@pytest.mark.parametrize(
    ("message_id", "dispatch"),
    [
        (f"{UUID}.1.1", 1),
        (f"{UUID}.12345.7", 12345),
        (UUID, 1),
        (f"{UUID}.2", 1),
        (f"{UUID}.x.7", 1),
        (f"{UUID}.2.", 1),
        ("order.5.7", 1),
        ("", 1),
    ],
)
def test_the_dispatch_number_is_read_from_ids_of_ours_only(message_id: str, dispatch: int) -> None:
    assert wire.dispatch_of(message_id.encode()) == dispatch


@pytest.mark.parametrize(
    ("message_id", "label"), [(f"{UUID}.3.9", f"{UUID}.3"), ("order.5", "order.5"), ("", ""), ("x", "x")]
)
def test_the_label_of_an_id(message_id: str, label: str) -> None:
    assert wire.label_of(message_id.encode()) == label


@pytest.mark.parametrize(("message_id", "number"), [(b"a.1.77", 77), (b"8", 8), (b"", None), (b"a.b", None)])
def test_the_number_of_a_sending(message_id: bytes, number: int | None) -> None:
    assert wire.number_of(message_id) == number


def test_a_body_frame_is_what_pamqp_makes() -> None:
    data = wire.publish(1, FRAME_MAX, "", "q", wire.properties("m", 0, {}), b"body")

    assert data.endswith(frame.marshal(ContentBody(b"body"), 1))
