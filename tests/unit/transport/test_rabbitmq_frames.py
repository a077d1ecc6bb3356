"""The tap: hot frames of tapped channels go to their sink, all others on to aiormq, however the bytes arrive."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pamqp import commands, frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from jq_actors.transport.rabbitmq.amqp import frames, wire
from jq_actors.transport.rabbitmq.amqp.frames import FrameTap


class Sink(frames.Sink):
    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def on_deliver(self, method: bytes, header: bytes, body: bytes) -> None:
        tag, number, _ = wire.read_deliver(method)
        self.seen.append(("deliver", tag.decode(), number, wire.read_message_id(header), body))

    def on_consumer_cancelled(self, consumer: bytes) -> None:
        self.seen.append(("cancelled", consumer.decode()))

    def on_return(self, method: bytes, header: bytes) -> None:
        self.seen.append(("return", wire.read_reply_text(method), wire.read_message_id(header)))

    def on_confirm(self, tag: int, *, multiple: bool, taken: bool) -> None:
        self.seen.append(("confirm", tag, multiple, taken))

    def on_declared(self, method: bytes) -> None:
        self.seen.append(("declared", *wire.read_declared(method)))

    def on_prefetch_set(self) -> bool:
        self.seen.append(("prefetch set",))
        return True

    def on_closing(self, reason: str, code: int = 0) -> None:
        self.seen.append(("closing", reason, code))


class Wire:
    """A tap without a socket: what is received is given to it, what it passes on is in the reader."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.reader = asyncio.StreamReader(limit=2**24, loop=loop)
        self.tap = FrameTap(self.reader, loop)

    async def passed(self) -> bytes:
        self.reader.feed_eof()
        return await self.reader.read()


def content(channel: int, method: Any, message_id: str, *parts: bytes) -> bytes:
    """The frames of a delivery or a return."""
    size = sum(map(len, parts))
    header = ContentHeader(0, size, commands.Basic.Properties(message_id=message_id))
    frames = [method, header, *map(ContentBody, parts)]
    return b"".join(frame.marshal(value, channel) for value in frames)


def deliver(channel: int, number: int, *parts: bytes) -> bytes:
    return content(channel, commands.Basic.Deliver("c", number, False, "", "q"), f"m{number}", *parts)


async def test_a_delivery_of_several_frames_is_put_together() -> None:
    wired, sink = Wire(), Sink()
    wired.tap.attach(1, sink)

    wired.tap.data_received(deliver(1, 1, b"one ", b"two ", b"three") + deliver(1, 2) + deliver(1, 3, b"x"))

    assert sink.seen == [
        ("deliver", "c", 1, b"m1", b"one two three"),
        ("deliver", "c", 2, b"m2", b""),
        ("deliver", "c", 3, b"m3", b"x"),
    ]


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 2000), max_size=30))
def test_the_bytes_may_be_cut_anywhere(cuts: list[int]) -> None:
    async def run() -> None:
        wired, sink, other = Wire(), Sink(), Sink()
        wired.tap.attach(1, sink)
        wired.tap.attach(2, other)
        ok = frame.marshal(commands.Basic.ConsumeOk("c"), 1)
        foreign = deliver(3, 9, b"not tapped")
        returned = content(2, commands.Basic.Return(312, "NO_ROUTE", "", "q"), "r1", b"z" * 50)
        ack = frame.marshal(commands.Basic.Ack(4, True), 2)
        data = b"".join([ok, deliver(1, 1, b"a" * 300, b"b"), foreign, wire.HEARTBEAT, returned, ack, ok])

        ends = sorted({min(cut, len(data)) for cut in cuts} | {len(data)})
        start = 0
        for end in ends:
            wired.tap.data_received(data[start:end])
            start = end

        assert sink.seen == [("deliver", "c", 1, b"m1", b"a" * 300 + b"b")]
        assert other.seen == [("return", "NO_ROUTE", b"r1"), ("confirm", 4, True, True)]
        assert (await wired.passed()).replace(wire.HEARTBEAT, b"") == ok + foreign + ok

    asyncio.run(run())


async def test_the_answer_to_a_declare_is_for_the_sink_of_its_channel() -> None:
    wired, sink = Wire(), Sink()
    wired.tap.attach(1, sink)
    foreign = frame.marshal(commands.Queue.DeclareOk("q", 1, 2), 3)

    wired.tap.data_received(frame.marshal(commands.Queue.DeclareOk("q", 7, 5), 1) + foreign)

    assert sink.seen == [("declared", 7, 5)]
    assert await wired.passed() == foreign


async def test_a_consumer_that_the_broker_ends_is_reported_to_its_sink_and_to_aiormq() -> None:
    wired, sink = Wire(), Sink()
    wired.tap.attach(1, sink)
    cancels = [frame.marshal(commands.Basic.Cancel("c", True), channel) for channel in (1, 2)]

    wired.tap.data_received(b"".join(cancels))

    assert sink.seen == [("cancelled", "c")]
    assert await wired.passed() == b"".join(cancels)


async def test_a_channel_that_the_broker_closes_is_tapped_no_more() -> None:
    wired, sink = Wire(), Sink()
    wired.tap.attach(1, sink)
    close = frame.marshal(commands.Channel.Close(406, "PRECONDITION_FAILED", 60, 20), 1)
    late = deliver(1, 2, b"of a new channel with the old number")

    wired.tap.data_received(deliver(1, 1, b"x") + close + late)

    assert sink.seen == [("deliver", "c", 1, b"m1", b"x"), ("closing", "PRECONDITION_FAILED", 406)]
    assert await wired.passed() == close + late


async def test_a_channel_that_we_have_closed_is_tapped_until_the_broker_confirms_it() -> None:
    wired, sink, next_sink = Wire(), Sink(), Sink()
    wired.tap.attach(1, sink)
    closed = frame.marshal(commands.Channel.CloseOk(), 1)

    wired.tap.data_received(deliver(1, 1, b"sent before it was closed") + closed)
    wired.tap.attach(1, next_sink)
    wired.tap.data_received(deliver(1, 1, b"of the next channel with this number"))

    assert sink.seen == [("deliver", "c", 1, b"m1", b"sent before it was closed"), ("closing", "closed by us", 0)]
    assert next_sink.seen == [("deliver", "c", 1, b"m1", b"of the next channel with this number")]
    assert await wired.passed() == closed


async def test_aiormq_sees_a_sign_of_life_when_everything_was_tapped() -> None:
    wired, sink = Wire(), Sink()
    wired.tap.attach(1, sink)

    wired.tap.data_received(deliver(1, 1, b"x"))

    # The last sign of life is the start of the loop's clock, long ago.
    assert await wired.passed() == wire.HEARTBEAT


async def test_the_lost_connection_is_told_to_all_sinks() -> None:
    wired, sinks = Wire(), [Sink(), Sink()]
    for channel, sink in enumerate(sinks, 1):
        wired.tap.attach(channel, sink)

    wired.tap.connection_lost(None)

    assert [sink.seen for sink in sinks] == [[("closing", "the connection was lost", 0)]] * 2
    assert wired.tap.lost.done()


async def test_why_the_broker_closes_is_kept() -> None:
    wired = Wire()
    close = frame.marshal(commands.Connection.Close(530, "NOT_ALLOWED - vhost x not found", 10, 40), 0)

    wired.tap.data_received(close)

    assert wired.tap.close_text == "NOT_ALLOWED - vhost x not found"
    assert await wired.passed() == close


async def test_alarms_are_told() -> None:
    wired, told = Wire(), list[bool]()
    wired.tap.on_blocked = told.append
    blocked = frame.marshal(commands.Connection.Blocked("low on memory"), 0)
    unblocked = frame.marshal(commands.Connection.Unblocked(), 0)

    wired.tap.data_received(blocked + unblocked)

    assert told == [True, False]
    assert await wired.passed() == blocked + unblocked


@pytest.mark.parametrize("data", [b"AMQP\x00\x00\x09\x01", b"\x01\x00\x01\x00\x00\x00\x01xy"], ids=["header", "end"])
async def test_what_is_no_frame_is_left_to_aiormq(data: bytes) -> None:
    wired, sink = Wire(), Sink()
    wired.tap.attach(1, sink)

    wired.tap.data_received(data)
    wired.tap.data_received(b"more")

    assert sink.seen == []
    assert await wired.passed() == data + b"more"
