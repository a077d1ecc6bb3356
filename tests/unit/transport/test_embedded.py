"""The inside of the embedded transport: turns, delays on a still clock, and the room of lanes with rows.

What it promises to its callers is in `tests/conformance/transport/test_transport.py`.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import count

from jq_actors.config.loading import BrokerConfig
from jq_actors.events import AckLost, Events, MemoryJobsLost
from jq_actors.model.job import JobId
from jq_actors.transport.embedded.transport import DEAD_LETTERS, EmbeddedTransport
from jq_actors.transport.port import Deferred, Delivery, Outgoing, Published
from tests.support.clock import FakeClock
from tests.support.recorder import EventRecorder

numbers = count(1)


def message(body: str = "", *, delay: float = 0, relayed: bool = False) -> Outgoing:
    return Outgoing(JobId(f"{next(numbers)}"), 1, "mail", body.encode(), 0, timedelta(seconds=delay), relayed=relayed)


async def opened(clock: FakeClock, events: Events | None = None, *, has_store: bool = False) -> EmbeddedTransport:
    transport = EmbeddedTransport(BrokerConfig(), clock, events or Events(), has_store=has_store)
    await transport.start()
    return transport


async def turn() -> None:
    """Let the lanes deliver what they can."""
    for _ in range(3):
        await asyncio.sleep(0)


# -- turns ------------------------------------------------------------------------------------------------


async def test_nothing_is_delivered_inside_of_a_publish(clock: FakeClock) -> None:
    transport, taken = await opened(clock), list[Delivery]()
    transport.want("mail", 5, taken.append)

    await transport.publish([message()])

    assert taken == []
    await turn()
    assert len(taken) == 1
    await transport.close()


async def test_a_consumer_that_gives_back_at_once_does_not_keep_the_loop(clock: FakeClock) -> None:
    transport, rounds = await opened(clock), count()

    def give_back(delivery: Delivery) -> None:
        next(rounds)
        delivery.requeue()

    transport.want("mail", 5, give_back)
    await transport.publish([message(), message()])

    for _ in range(5):  # this test itself gets its turns in between
        await turn()

    assert next(rounds) >= 10
    await transport.close()


async def test_an_ending_given_twice_is_counted_and_forgotten(clock: FakeClock) -> None:
    events = Events()
    recorder = EventRecorder(events, AckLost)
    transport, taken = await opened(clock, events), list[Delivery]()
    transport.want("mail", 1, taken.append)
    await transport.publish([message("a"), message("b")])
    await turn()

    taken[0].ack()
    taken[0].requeue()
    await turn()

    assert [delivery.body for delivery in taken] == [b"a", b"b"]
    assert len(recorder.of(AckLost)) == 1
    await transport.close()


async def test_the_newest_dead_letters_are_kept(clock: FakeClock) -> None:
    transport = await opened(clock)
    transport.want("mail", 1, lambda delivery: delivery.bury("no command"))
    await transport.publish([message(f"{n}") for n in range(DEAD_LETTERS + 5)])

    for _ in range(DEAD_LETTERS + 5):
        await turn()

    assert [dead.body for dead in transport.dead][:2] == [b"5", b"6"]
    assert len(transport.dead) == DEAD_LETTERS
    await transport.close()


# -- delays -----------------------------------------------------------------------------------------------


async def test_each_delay_ends_at_its_time(clock: FakeClock) -> None:
    transport, taken = await opened(clock), list[str]()

    def take(delivery: Delivery) -> None:
        taken.append(f"{delivery.body.decode()} at {clock.monotonic():g}")
        delivery.ack()

    transport.want("mail", 9, take)
    await transport.publish([message("month", delay=2_592_000), message("long", delay=60), message("short", delay=5)])
    await clock.advance(4)
    await transport.publish([message("shorter", delay=0.5)])

    await clock.advance(100)

    assert taken == ["shorter at 4.5", "short at 5", "long at 60"]
    await transport.close()


async def test_many_delayed_messages_wait_in_one_task(clock: FakeClock) -> None:
    transport = await opened(clock)
    before = len(asyncio.all_tasks())

    await transport.publish([message(delay=86_400) for _ in range(1000)])
    await turn()

    assert len(asyncio.all_tasks()) - before <= 2
    await transport.close()


async def test_what_was_delayed_is_still_there_after_opening_again(clock: FakeClock) -> None:
    transport, taken = await opened(clock), list[Delivery]()
    await transport.publish([message("later", delay=10)])
    await transport.close()

    await transport.start()
    transport.want("mail", 1, taken.append)
    await clock.advance(10)

    assert [delivery.body for delivery in taken] == [b"later"]
    await transport.close()


# -- the end of the process -------------------------------------------------------------------------------


async def test_without_rows_closing_tells_how_many_jobs_end_with_the_process(clock: FakeClock) -> None:
    events = Events()
    recorder = EventRecorder(events, MemoryJobsLost)
    transport, taken = await opened(clock, events), list[Delivery]()
    transport.want("mail", 1, taken.append)
    await transport.publish([message("in hand"), message("waits"), message("delayed", delay=9)])
    await turn()

    await transport.close()

    assert [event.count for event in recorder.of(MemoryJobsLost)] == [3]


async def test_with_rows_nothing_is_lost_and_so_nothing_told(clock: FakeClock) -> None:
    events = Events()
    recorder = EventRecorder(events, MemoryJobsLost)
    transport = await opened(clock, events, has_store=True)
    transport.want("mail", 1, lambda _: None)
    await transport.publish([message()])

    await transport.close()

    assert recorder.seen == []


async def test_check_warns_only_where_jobs_are_in_memory_alone(clock: FakeClock) -> None:
    without, with_rows = await opened(clock), await opened(clock, has_store=True)

    assert "memory" in (await without.check(["mail"])).warnings[0]
    assert (await with_rows.check(["mail"])).warnings == ()
    await without.close()
    await with_rows.close()


# -- room -------------------------------------------------------------------------------------------------


async def test_after_a_refusal_new_sendings_stay_out_until_the_lane_has_caught_up(clock: FakeClock) -> None:
    transport, taken = await opened(clock, has_store=True), list[Delivery]()
    transport.want("mail", 4, taken.append)
    results = await transport.publish([message(f"{n}") for n in range(7)])
    assert results == [Published()] * 6 + [Deferred()]
    await turn()

    taken[0].ack()
    await turn()
    assert transport.capacity("mail") == 3
    assert await transport.publish([message("new")]) == [Deferred()]

    assert await transport.publish([message("6", relayed=True)]) == [Published()]
    for delivery in tuple(taken[1:5]):
        delivery.ack()
    await turn()
    assert [delivery.body for delivery in taken] == [b"%d" % n for n in range(7)]
    assert await transport.publish([message("new")]) == [Published()]
    await transport.close()


async def test_the_relay_is_called_once_when_a_full_lane_has_drained_by_half(clock: FakeClock) -> None:
    transport, taken, calls = await opened(clock, has_store=True), list[Delivery](), list[int]()
    transport.on_room = lambda: calls.append(transport.capacity("mail"))
    transport.want("mail", 4, taken.append)
    await transport.publish([message(relayed=True) for _ in range(8)])

    for number in range(8):
        await turn()
        taken[number].ack()

    assert calls == [2]
    await transport.close()


async def test_a_queue_that_is_no_longer_consumed_has_no_room(clock: FakeClock) -> None:
    transport = await opened(clock, has_store=True)
    transport.want("mail", 4, lambda _: None)

    await transport.stop_intake()

    assert transport.capacity("mail") == 0
    assert await transport.publish([message(), message(relayed=True)]) == [Deferred()] * 2
    await transport.close()
