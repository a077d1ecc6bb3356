"""What `transport.port` promises of lanes, on every adapter: given back, looked at, forgotten."""

from __future__ import annotations

from datetime import timedelta

from jq_actors.model.lane import Fairness, Lane
from jq_actors.transport.port import Published, QueueDepth
from tests.support.waiting import eventually

from .lanes import eventually_empty, grouped, lane_depth, seen, serve
from .transports import AckingHand, Hand, World

# -- given back -------------------------------------------------------------------------------------------


async def test_what_is_given_back_keeps_its_place(unbounded: World, queue: str) -> None:
    transport, hand, lane = await unbounded.open(), Hand(), Lane(queue, "g")
    serve(transport, queue, hand)
    await transport.publish(grouped("a b c", lane))

    for count in (1, 2):
        (await hand.has(count))[-1].requeue()
    for count in (3, 4):
        (await hand.has(count))[-1].ack()
    await hand.has(5)

    assert hand.bodies == ["a", "a", "a", "b", "c"]
    assert [delivery.redelivered for delivery in hand.deliveries[:3]] == [False, True, True]


async def test_a_lane_that_is_given_back_waits_behind_the_others(unbounded: World, queue: str) -> None:
    transport, hand = await unbounded.open(), Hand()
    await transport.publish([*grouped("a", Lane(queue, "first")), *grouped("x", Lane(queue, "second"))])
    serve(transport, queue, hand, slots=1)
    [first] = await hand.has(1)

    first.requeue()

    (await hand.has(2))[-1].ack()
    await hand.has(3)
    one, other = hand.bodies[0], hand.bodies[1]
    assert {one, other} == {"a", "x"}
    assert hand.bodies == [one, other, one]


# -- looks, and lanes that are over -----------------------------------------------------------------------


async def test_a_look_tells_what_waits_and_who_serves(unbounded: World, queue: str) -> None:
    transport, hand = await unbounded.open(), Hand()
    lane, other = Lane(queue, "g"), Lane(queue, "unknown")
    await transport.publish(grouped("a b c", lane))
    assert [await seen(transport, one) for one in (other, lane)] == [None, QueueDepth(3, 0)]

    serve(transport, queue, hand)

    await hand.has(1)
    served = await lane_depth(transport, lane)
    assert served.consumers == 1
    assert served.ready <= 2  # what a broker has sent ahead waits no more
    for count in (1, 2, 3):
        (await hand.has(count))[-1].ack()
    await eventually_empty(transport, lane)


async def test_a_lane_that_was_idle_for_its_time_is_forgotten_and_made_again(classic: World, queue: str) -> None:
    transport, hand, lane = await classic.open(), AckingHand(), Lane(queue, "g")
    serve(transport, queue, hand, fairness=Fairness(idle=timedelta(milliseconds=100)))
    await transport.publish(grouped("a", lane))
    await hand.has(1)

    async def is_gone() -> bool:
        return await seen(transport, lane) is None

    await eventually(is_gone, why="the lane to be forgotten")

    assert await transport.publish(grouped("b", lane)) == [Published()]
    await hand.has(2)
    assert hand.bodies == ["a", "b"]
