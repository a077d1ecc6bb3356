"""What `transport.port` promises of lanes, on every adapter: who is served, in which order, and the end.

Lanes that are given back: `test_lanes_given_back.py`; fairness, partitions and races: `test_lanes_at_work.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from jq_actors.events import AckLost
from jq_actors.model.lane import Lane
from jq_actors.transport.port import Delivery, Published, QueueDepth, Transport
from tests.support.waiting import eventually

from .lanes import bodies_of, eventually_empty, grouped, lane_depth, others_come, seen, serve
from .transports import AckingHand, Hand, RabbitWorld, World, jobs

NAMES = [
    "x" * 512,
    "x" * 511 + "y",  # differs from the first only at its end
    "é" * 512,
    "🦄" * 512,
    "a/b//c/..",
    "..",
    ".",
    "*",
    "#",
    "tenant.42.*.#",
    "100%",
    "100%25",
    "~",
    " ",
    "  two\nlines\t",
    "Ümlaut",
    "ümlaut",
    '{"key": "value"}',
]
"""Names of groups that an encoding may stumble over, or take for the same."""

END: dict[str, Callable[[Delivery], None]] = {
    "acked": lambda delivery: delivery.ack(),
    "buried": lambda delivery: delivery.bury("no command"),
}


# -- service ----------------------------------------------------------------------------------------------


async def test_what_is_published_into_a_lane_is_delivered(unbounded: World, queue: str) -> None:
    transport, hand, lane = await unbounded.open(), AckingHand(), Lane(queue, "mail/7", weight=3)
    serve(transport, queue, hand)

    assert await transport.publish(grouped("a b", lane)) == [Published()] * 2

    first, _ = await hand.has(2)
    assert (first.queue, first.lane, first.body, first.dispatch, first.redelivered) == (queue, lane, b"a", 1, False)
    assert hand.bodies == ["a", "b"]


async def test_a_lane_that_has_waited_is_served_when_serving_begins(unbounded: World, queue: str) -> None:
    transport, hand, lane = await unbounded.open(), AckingHand(), Lane(queue, "g")
    await transport.publish(grouped("a b c", lane))

    serve(transport, queue, hand)

    await hand.has(3)
    assert hand.bodies == ["a", "b", "c"]


async def test_lanes_may_be_served_before_the_connection(unbounded: World, queue: str) -> None:
    transport, hand = unbounded.make(), AckingHand()
    serve(transport, queue, hand)

    await transport.start()
    assert await transport.wait_connected(20)
    await transport.publish(grouped("a", Lane(queue, "g")))

    await hand.has(1)


async def test_the_queue_itself_is_consumed_beside_its_lanes(unbounded: World, queue: str) -> None:
    transport, plain, of_lanes = await unbounded.open(), AckingHand(), AckingHand()
    transport.want(queue, 5, plain)
    serve(transport, queue, of_lanes)

    await transport.publish([*jobs("a b", queue), *grouped("x", Lane(queue, "g")), *jobs("c", queue)])

    assert [delivery.lane for delivery in await plain.has(3)] == [None] * 3
    await of_lanes.has(1)
    assert (plain.bodies, of_lanes.bodies) == (["a", "b", "c"], ["x"])


async def test_lanes_of_the_same_group_in_other_queues_are_others(unbounded: World, queue: str) -> None:
    transport, first, second = await unbounded.open(), Hand(), Hand()
    serve(transport, f"{queue}1", first)
    serve(transport, f"{queue}2", second)

    await transport.publish([*grouped("a", Lane(f"{queue}1", "g")), *grouped("b", Lane(f"{queue}2", "g"))])

    await first.has(1)
    await second.has(1)
    assert (first.bodies, second.bodies) == (["a"], ["b"])


async def test_no_more_lanes_are_served_than_there_are_slots(unbounded: World, queue: str) -> None:
    transport, hand = await unbounded.open(), Hand()
    lanes = [Lane(queue, f"g{n}") for n in range(5)]
    serve(transport, queue, hand, slots=2)

    await transport.publish([message for lane in lanes for message in grouped("a", lane)])

    first, _ = await hand.has(2)
    assert [await lane_depth(transport, lane) for lane in lanes].count(QueueDepth(1, 0)) == 3
    assert len(hand.deliveries) == 2
    first.ack()
    await hand.has(3)
    assert len({delivery.lane for delivery in hand.deliveries}) == 3


@pytest.mark.parametrize("ending", END)
async def test_the_next_of_a_group_comes_when_the_one_before_has_ended(
    unbounded: World, queue: str, ending: str
) -> None:
    transport, hand, lane = await unbounded.open(), Hand(), Lane(queue, "g")
    serve(transport, queue, hand)
    await transport.publish(grouped("a b c", lane))

    for count in (1, 2, 3):
        *_, last = await hand.has(count)
        await others_come(transport, queue, hand)
        assert bodies_of(hand, lane) == ["a", "b", "c"][:count]
        END[ending](last)
        hand.deliveries = [delivery for delivery in hand.deliveries if delivery.lane == lane]

    await eventually_empty(transport, lane)


async def test_a_lane_with_seats_has_so_many_in_hand_and_no_more(unbounded: World, queue: str) -> None:
    transport, hand, lane = await unbounded.open(), Hand(), Lane(queue, "g", seats=3)
    serve(transport, queue, hand)

    await transport.publish(grouped("a b c d e f", lane))

    [first, *_] = await hand.has(3)
    await others_come(transport, queue, hand)
    assert sorted(bodies_of(hand, lane)) == ["a", "b", "c"]
    first.ack()
    await eventually(lambda: len(bodies_of(hand, lane)) == 4, why="the fourth")
    await others_come(transport, queue, hand)
    assert sorted(bodies_of(hand, lane)) == ["a", "b", "c", "d"]


async def test_a_seat_that_comes_free_late_is_taken_by_what_comes_later(unbounded: World, queue: str) -> None:
    transport, hand, lane = await unbounded.open(), Hand(), Lane(queue, "g", seats=2)
    serve(transport, queue, hand)
    await transport.publish(grouped("a", lane))
    await hand.has(1)

    await transport.publish(grouped("b", lane))

    await hand.has(2)  # while the first is still in hand


async def test_any_name_is_a_lane_of_its_own(unbounded: World, queue: str) -> None:
    transport, hand = await unbounded.open(), AckingHand()
    lanes = [Lane(queue, name) for name in NAMES]
    await transport.publish([message for n, lane in enumerate(lanes) for message in grouped(f"{n}", lane)])
    assert [await seen(transport, lane) for lane in lanes] == [QueueDepth(1, 0)] * len(lanes)

    serve(transport, queue, hand)

    came = {delivery.lane: delivery.body.decode() for delivery in await hand.has(len(lanes))}
    assert came == {lane: f"{n}" for n, lane in enumerate(lanes)}


async def test_after_a_cut_a_lane_is_served_again_in_order(broker: RabbitWorld, queue: str) -> None:
    transport, hand, lane = await broker.open(), Hand(), Lane(queue, "g")
    serve(transport, queue, hand)
    await transport.publish(grouped("a b c", lane))
    [lost] = await hand.has(1)

    broker.proxy.cut()

    [_, again] = await hand.has(2, timeout=30)
    assert (again.body, again.redelivered, lost.is_open) == (b"a", True, False)
    lost.ack()
    assert [event.queue for event in broker.recorder.of(AckLost)] == [queue]
    again.ack()
    (await hand.has(3))[2].ack()
    await hand.has(4)
    assert hand.bodies == ["a", "a", "b", "c"]


# -- the end ----------------------------------------------------------------------------------------------


async def test_after_stop_intake_no_lane_is_served_and_deliveries_stay_valid(unbounded: World, queue: str) -> None:
    transport, hand = await unbounded.open(), Hand()
    acked, requeued = Lane(queue, "acked"), Lane(queue, "requeued")
    serve(transport, queue, hand)
    await transport.publish([*grouped("a b", acked), *grouped("x y", requeued)])
    by_lane = {delivery.lane: delivery for delivery in await hand.has(2)}

    await transport.stop_intake()
    await transport.publish([*grouped("c", acked), *grouped("e", Lane(queue, "late"))])
    by_lane[acked].ack()
    by_lane[requeued].requeue()
    await transport.close()

    assert sorted(hand.bodies) == ["a", "x"]
    assert unbounded.recorder.of(AckLost) == []
    left = await _left(unbounded, transport, queue, 5)
    assert left == {acked.key: ["b", "c"], requeued.key: ["x", "y"], "late": ["e"]}


async def test_closing_gives_back_what_is_in_hand_of_a_lane(unbounded: World, queue: str) -> None:
    transport, hand, lane = await unbounded.open(), Hand(), Lane(queue, "g")
    serve(transport, queue, hand)
    await transport.publish(grouped("a b", lane))
    [late] = await hand.has(1)

    await transport.close()
    late.ack()

    assert [event.queue for event in unbounded.recorder.of(AckLost)] == [queue]
    assert await _left(unbounded, transport, queue, 2) == {"g": ["a", "b"]}


async def _left(world: World, closed: Transport, queue: str, count: int) -> dict[str, list[str]]:
    """What the lanes of a closed transport hold, by key: ``count`` messages in all."""
    transport, hand, left = await world.reopen(closed), AckingHand(), dict[str, list[str]]()
    serve(transport, queue, hand)
    for delivery in await hand.has(count):
        assert delivery.lane is not None
        left.setdefault(delivery.lane.key, []).append(delivery.body.decode())
    await transport.close()
    return left
