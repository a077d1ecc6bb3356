"""The inside of the embedded transport's lanes: turns, what is told, and what is forgotten.

What they promise to their callers is in `tests/conformance/transport/test_lanes.py` and its neighbours.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import count

from jq_actors.config.loading import BrokerConfig
from jq_actors.events import AckLost, Events, LaneClosed, LaneOpened, MemoryJobsLost
from jq_actors.model.job import JobId
from jq_actors.model.lane import Fairness, Lane
from jq_actors.transport.embedded.lane import MemoryLane
from jq_actors.transport.embedded.transport import EmbeddedTransport
from jq_actors.transport.port import Delivery, Outgoing, QueueDepth
from tests.support.clock import FakeClock
from tests.support.recorder import EventRecorder

numbers = count(1)


def message(group: str = "g", body: str = "", *, delay: float = 0) -> Outgoing:
    return Outgoing(
        JobId(f"{next(numbers)}"),
        1,
        "mail",
        body.encode(),
        delay=timedelta(seconds=delay),
        lane=Lane("mail", group),
        group=group,
    )


class Bench:
    """An open transport that serves the lanes of ``mail``."""

    def __init__(self, clock: FakeClock) -> None:
        self.events = Events()
        self.recorder = EventRecorder(self.events, AckLost, LaneClosed, LaneOpened, MemoryJobsLost)
        self.transport = EmbeddedTransport(BrokerConfig(), clock, self.events, has_store=False)
        self.taken: list[Delivery] = []

    async def serve(
        self, slots: int = 2, deliver: Callable[[Delivery], None] | None = None, fairness: Fairness | None = None
    ) -> None:
        await self.transport.start()
        self.transport.serve_lanes("mail", slots, fairness or Fairness(), deliver or self.taken.append)

    @property
    def bodies(self) -> list[str]:
        return [delivery.body.decode() for delivery in self.taken]

    @property
    def closed(self) -> list[tuple[str, str, int]]:
        return [(event.key, event.why, event.jobs) for event in self.recorder.of(LaneClosed)]


async def turn() -> None:
    """Let the lanes deliver what they can."""
    for _ in range(4):
        await asyncio.sleep(0)


# -- turns ------------------------------------------------------------------------------------------------


async def test_nothing_is_delivered_inside_of_a_publish_or_an_ending(clock: FakeClock) -> None:
    bench = Bench(clock)
    await bench.serve()

    await bench.transport.publish([message(body="a"), message(body="b")])
    assert bench.taken == []
    await turn()
    bench.taken[0].ack()

    assert bench.bodies == ["a"]
    await turn()
    assert bench.bodies == ["a", "b"]
    await bench.transport.close()


async def test_one_who_gives_back_at_once_does_not_keep_the_loop(clock: FakeClock) -> None:
    bench, rounds = Bench(clock), count()

    def give_back(delivery: Delivery) -> None:
        next(rounds)
        delivery.requeue()

    await bench.serve(5, give_back)
    await bench.transport.publish([message("a"), message("b")])

    for _ in range(10):  # this test itself gets its turns in between
        await turn()

    assert next(rounds) >= 10
    await bench.transport.close()


async def test_an_ending_given_twice_frees_no_second_slot(clock: FakeClock) -> None:
    bench = Bench(clock)
    await bench.serve(1)
    await bench.transport.publish([message(group) for group in "abc"])
    await turn()

    for _ in range(2):
        bench.taken[0].ack()
    bench.taken[0].requeue()
    await turn()

    assert len(bench.taken) == 2
    assert len(bench.recorder.of(AckLost)) == 2
    await bench.transport.close()


async def test_priorities_do_not_change_the_order_of_a_lane(clock: FakeClock) -> None:
    bench = Bench(clock)
    batch = [message(body=body) for body in "abc"]
    batch[2] = replace(batch[2], priority=9)
    await bench.serve(1)
    await bench.transport.publish(batch)

    for _ in range(3):
        await turn()
        bench.taken[-1].ack()

    assert bench.bodies == ["a", "b", "c"]
    await bench.transport.close()


async def test_a_lane_that_was_served_for_its_time_waits_behind_the_others(clock: FakeClock) -> None:
    bench = Bench(clock)
    await bench.serve(1, fairness=Fairness(time_slice=timedelta(seconds=5)))
    await bench.transport.publish([message("long", "1"), message("long", "2"), message("long", "3"), message("other")])
    await turn()

    for seconds in (4.9, 0.1):
        await clock.advance(seconds)
        bench.taken[-1].ack()
        await turn()

    assert [delivery.lane and delivery.lane.key for delivery in bench.taken] == ["long", "long", "other"]
    bench.taken[-1].ack()
    await turn()
    assert bench.bodies[-1] == "3"
    assert bench.closed == [("long", "handed over", 2), ("other", "drained", 1)]
    await bench.transport.close()


async def test_a_lane_with_seats_to_fill_waits_behind_the_others_too(clock: FakeClock) -> None:
    bench, wide = Bench(clock), Lane("mail", "wide", seats=2)
    await bench.serve(1)
    await bench.transport.publish([replace(message("wide"), lane=wide) for _ in range(2)])
    await turn()
    await bench.transport.publish([message("other")])

    bench.taken[0].requeue()
    await turn()

    assert [delivery.lane and delivery.lane.key for delivery in bench.taken] == ["wide", "other"]
    await bench.transport.close()


async def test_after_stop_intake_nobody_serves_what_was_about_to_be(clock: FakeClock) -> None:
    bench = Bench(clock)
    await bench.serve(2)
    await bench.transport.publish([message("served"), message("served")])
    await turn()
    await bench.transport.publish([message("new")])
    bench.taken[0].ack()

    await bench.transport.stop_intake()
    await turn()

    assert len(bench.taken) == 1
    assert await bench.transport.depth("mail") == QueueDepth(2, 0)
    assert bench.closed == [("served", "given back", 1)]
    await bench.transport.close()


# -- what is told and what is forgotten -------------------------------------------------------------------


async def test_it_tells_which_lanes_are_served_and_why_no_more(clock: FakeClock) -> None:
    bench = Bench(clock)
    await bench.serve(2)
    await bench.transport.publish([message("drained"), message("given back")])
    await turn()
    bench.taken[0].ack()
    await turn()
    await bench.transport.stop_intake()
    bench.taken[1].requeue()

    assert [event.served for event in bench.recorder.of(LaneOpened)] == [1, 2]
    assert bench.closed == [("drained", "drained", 1), ("given back", "given back", 0)]
    await bench.transport.close()


async def test_groups_that_came_and_went_leave_nothing(clock: FakeClock) -> None:
    bench = Bench(clock)

    def end(delivery: Delivery) -> None:
        bench.taken.append(delivery)
        delivery.ack()

    await bench.serve(100, end)
    await bench.transport.publish([message(f"came and went {number % 5000}") for number in range(10_000)])
    assert len(_lanes_of("came and went")) == 5000
    while len(bench.taken) < 10_000:
        await turn()
    await turn()

    bench.taken.clear()
    assert _lanes_of("came and went") == []
    await bench.transport.close()


def _lanes_of(prefix: str) -> list[MemoryLane]:
    gc.collect()
    lanes = [thing for thing in gc.get_objects() if isinstance(thing, MemoryLane)]
    return [lane for lane in lanes if lane.lane.key.startswith(prefix)]


async def test_what_waits_in_lanes_counts_for_its_queue_and_is_purged_with_it(clock: FakeClock) -> None:
    bench = Bench(clock)
    await bench.serve(1)
    bench.transport.want("mail", 1, bench.taken.append)
    plain = [Outgoing(JobId(f"{next(numbers)}"), 1, "mail", b"plain") for _ in range(3)]
    await bench.transport.publish([*plain, message("a"), message("a"), message("b")])
    await turn()
    assert await bench.transport.depth("mail") == QueueDepth(4, 1)

    assert await bench.transport.purge("mail") == 4

    assert await bench.transport.depth("mail") == QueueDepth(0, 1)
    for delivery in tuple(bench.taken):
        delivery.ack()
    await turn()
    assert len(bench.taken) == 2
    await bench.transport.publish([message("b", "after")])
    await turn()
    assert bench.bodies[-1] == "after"
    await bench.transport.close()


async def test_without_rows_closing_tells_what_is_left_in_lanes(clock: FakeClock) -> None:
    bench = Bench(clock)
    await bench.serve(1)
    await bench.transport.publish([message("in hand"), message("waits"), message("left")])
    await turn()

    await bench.transport.close()

    assert [event.count for event in bench.recorder.of(MemoryJobsLost)] == [3]


async def test_what_was_delayed_joins_its_lane_when_it_is_due(clock: FakeClock) -> None:
    bench = Bench(clock)
    await bench.serve(1)
    await bench.transport.publish([message(body="later", delay=10), message(body="a"), message(body="b")])
    await turn()

    await clock.advance(10)
    for _ in range(2):
        bench.taken[-1].ack()
        await turn()

    assert bench.bodies == ["a", "b", "later"]
    await bench.transport.close()
