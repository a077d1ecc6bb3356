"""Lanes at work, on every adapter: many at once, fair hand-over, partitions, and the race of publish and drain.

Line by line, the port's promises are in `test_lanes.py` and `test_lanes_given_back.py`.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from datetime import timedelta
from itertools import groupby

import pytest

from jq_actors.model.lane import Fairness, Lane
from jq_actors.transport.port import Deliver, Delivery, Outgoing, Published
from tests.support.waiting import eventually

from .lanes import WorkingHand, grouped, serve
from .transports import Hand, RabbitWorld, World

FEW = 15
"""Deliveries that may come between a broker's answer and what follows from it."""


# -- many groups ------------------------------------------------------------------------------------------


async def test_many_groups_run_at_once_and_each_in_its_order(unbounded: World, queue: str) -> None:
    transport, hand = await unbounded.open(), WorkingHand()
    lanes = [Lane(queue, f"g{n}") for n in range(100)]
    serve(transport, queue, hand, slots=10)

    for numbers in ((0, 1, 2), (3,), (4, 5, 6, 7)):
        batch = [message for number in numbers for lane in lanes for message in _numbered(lane, number)]
        assert await transport.publish(batch) == [Published()] * len(batch)

    await hand.has(800, timeout=60)
    assert hand.numbers() == {lane.key: list(range(8)) for lane in lanes}
    assert set(hand.most_of_group.values()) == {1}
    assert 1 < hand.most <= 10


async def test_seats_bound_what_runs_of_each_group(unbounded: World, queue: str) -> None:
    transport, hand = await unbounded.open(), WorkingHand()
    lanes = [Lane(queue, f"g{n}", seats=3) for n in range(4)]
    serve(transport, queue, hand, slots=12)

    await transport.publish([message for lane in lanes for message in _numbered(lane, *range(30))])

    await hand.has(120, timeout=30)
    assert {group: sorted(numbers) for group, numbers in hand.numbers().items()} == {
        lane.key: list(range(30)) for lane in lanes
    }
    assert hand.most_of_group == Counter({lane.key: 3 for lane in lanes})


async def test_workers_share_the_lanes(broker: RabbitWorld, queue: str) -> None:
    transports, hand, shares = [await broker.open() for _ in range(2)], WorkingHand(), Counter[int]()
    for number, transport in enumerate(transports):
        serve(transport, queue, _counting(shares, number, hand), slots=5, fairness=Fairness(quantum=5))
    lanes = [Lane(queue, f"g{n}") for n in range(40)]

    batch = [message for number in range(10) for lane in lanes for message in _numbered(lane, number)]
    await transports[0].publish(batch)

    await hand.has(400, timeout=60)
    assert hand.numbers() == {lane.key: list(range(10)) for lane in lanes}
    assert set(hand.most_of_group.values()) == {1}
    assert min(shares[0], shares[1]) >= 100


def _counting(counts: Counter[int], number: int, hand: Hand) -> Deliver:
    def deliver(delivery: Delivery) -> None:
        counts[number] += 1
        hand(delivery)

    return deliver


# -- fair -------------------------------------------------------------------------------------------------


async def test_one_job_of_a_group_does_not_wait_for_thousands_of_another(unbounded: World, queue: str) -> None:
    transport, hand = await unbounded.open(), WorkingHand(0.001)
    long, short = Lane(queue, "long"), Lane(queue, "short")
    serve(transport, queue, hand, slots=1, fairness=Fairness(quantum=50))
    await transport.publish(_numbered(long, *range(2000)))
    await hand.has(5)

    await transport.publish(_numbered(short, 0))
    before = len(hand.deliveries)

    at = await eventually(lambda: "short:0" in hand.bodies and hand.bodies.index("short:0"), 30, "the one job")
    assert at - before <= 50 + FEW
    await hand.has(at + 10)  # and the many go on
    assert hand.numbers()["long"] == list(range(len(hand.numbers()["long"])))


async def test_a_heavy_lane_is_served_longer(unbounded: World, queue: str) -> None:
    transport, hand = await unbounded.open(), WorkingHand(0.001)
    light, heavy = Lane(queue, "light"), Lane(queue, "heavy", weight=4)
    await transport.publish([*_numbered(light, *range(200)), *_numbered(heavy, *range(400))])

    serve(transport, queue, hand, slots=1, fairness=Fairness(quantum=20))

    await hand.has(300, timeout=30)
    turns = [(key, len(list(turn))) for key, turn in groupby(hand.deliveries[:300], _key)]
    whole = turns[:-1]  # the last was cut off
    assert len(whole) >= 4
    assert all(20 <= length <= 20 + FEW for key, length in whole if key == "light")
    assert all(80 <= length <= 80 + FEW for key, length in whole if key == "heavy")


async def test_long_jobs_hand_over_by_time(unbounded: World, queue: str) -> None:
    transport, hand = await unbounded.open(), WorkingHand(0.02)
    fairness = Fairness(quantum=1_000_000, time_slice=timedelta(seconds=0.1))
    await transport.publish([*_numbered(Lane(queue, "a"), *range(100)), *_numbered(Lane(queue, "b"), *range(100))])

    serve(transport, queue, hand, slots=1, fairness=fairness)

    await eventually(lambda: len(hand.numbers()) == 2, 30, "both lanes to be served")
    assert len(hand.deliveries) < 50


async def test_nobody_hands_over_when_nobody_waits(unbounded: World, queue: str) -> None:
    transport, hand, lane = await unbounded.open(), WorkingHand(0.001), Lane(queue, "g")
    serve(transport, queue, hand, slots=2, fairness=Fairness(quantum=3))

    await transport.publish(_numbered(lane, *range(100)))

    await hand.has(100)
    assert hand.numbers() == {"g": list(range(100))}
    assert hand.most == 1


# -- partitions -------------------------------------------------------------------------------------------


async def test_a_partition_runs_one_of_each_group_and_several_groups(unbounded: World, queue: str) -> None:
    transport, hand, lane = await unbounded.open(), Hand(), Lane(queue, "t-*", partition=(2, 4))
    serve(transport, queue, hand)

    await transport.publish(grouped("a:0 a:1 b:0 a:2 c:0 b:1", lane))

    first = await hand.has(3)
    assert sorted(hand.bodies) == ["a:0", "b:0", "c:0"]
    assert {delivery.lane for delivery in first} == {lane}
    next(delivery for delivery in first if delivery.body == b"a:0").ack()
    await hand.has(4)
    assert hand.bodies[3] == "a:1"
    hand.deliveries[3].requeue()
    await eventually(lambda: hand.bodies.count("a:1") == 2, why="what was given back")
    assert "a:2" not in hand.bodies


async def test_partitions_keep_the_order_of_each_group(unbounded: World, queue: str) -> None:
    transport, hand = await unbounded.open(), WorkingHand()
    lanes = [Lane(queue, "*", partition=(n, 3)) for n in range(3)]
    serve(transport, queue, hand, slots=6)
    batch = [
        message
        for number in range(10)
        for group in range(30)
        for message in grouped(f"g{group}:{number}", lanes[group % 3])
    ]

    await transport.publish(batch)

    await hand.has(300, timeout=30)
    assert hand.numbers() == {f"g{group}": list(range(10)) for group in range(30)}
    assert set(hand.most_of_group.values()) == {1}
    assert hand.most >= 3


# -- races ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("idle", [60, 0], ids=["kept", "forgotten at once"])
async def test_what_is_published_while_its_lane_drains_is_delivered(unbounded: World, queue: str, idle: float) -> None:
    transport, came = await unbounded.open(), defaultdict[str, asyncio.Queue[str]](asyncio.Queue)

    def take(delivery: Delivery) -> None:
        delivery.ack()
        came[_key(delivery)].put_nowait(delivery.body.decode())

    async def ping(lane: Lane, pause: int) -> None:
        for number in range(40):
            assert await transport.publish(_numbered(lane, number)) == [Published()]
            assert await asyncio.wait_for(came[lane.key].get(), 20) == f"{lane.key}:{number}"
            for _ in range(pause):  # each lane meets its drain at another moment
                await asyncio.sleep(0)

    serve(transport, queue, take, fairness=Fairness(idle=timedelta(seconds=idle)))
    await asyncio.gather(*(ping(Lane(queue, f"g{n}"), n) for n in range(24)))

    assert all(queue.empty() for queue in came.values())


def _numbered(lane: Lane, *numbers: int) -> list[Outgoing]:
    return grouped(" ".join(f"{lane.key}:{number}" for number in numbers), lane)


def _key(delivery: Delivery) -> str:
    assert delivery.lane is not None
    return delivery.lane.key
