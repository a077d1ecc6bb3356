"""What `transport.port` promises of lanes, on every adapter: given back, left, offered, looked at, forgotten."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from jq_actors.errors import TransportError
from jq_actors.transport.lane import Fairness, Lane
from jq_actors.transport.port import Published, QueueDepth
from tests.support.waiting import eventually

from .lanes import bodies_of, eventually_depth, eventually_empty, grouped, lane_depth, others_come, serve
from .transports import AckingHand, Hand, World


async def still_blocked() -> bool:
    return True


async def free_again() -> bool:
    return False


# -- given back, and left ---------------------------------------------------------------------------------


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


async def test_a_lane_that_was_left_is_not_served_until_it_is_offered(unbounded: World, queue: str) -> None:
    transport, hand, lane = await unbounded.open(), Hand(), Lane(queue, "g")
    serve(transport, queue, hand, slots=1)
    await transport.publish(grouped("a b", lane))
    [delivery] = await hand.has(1)
    asked = asyncio.Event()

    async def ask() -> bool:
        asked.set()
        return True

    delivery.leave(ask)
    await asyncio.wait_for(asked.wait(), 10)
    await eventually_depth(transport, lane, 2, 0)
    await others_come(transport, queue, hand, end=True)  # it keeps no slot
    assert bodies_of(hand, lane) == ["a"]

    await transport.offer([lane])
    await eventually(lambda: len(bodies_of(hand, lane)) == 2, why="the lane to be served again")
    hand.deliveries[-1].ack()
    await eventually(lambda: len(bodies_of(hand, lane)) == 3, why="the rest of the lane")
    assert bodies_of(hand, lane) == ["a", "a", "b"]
    assert await lane_depth(transport, lane) in (QueueDepth(0, 1), QueueDepth(1, 1))


async def test_a_lane_that_is_free_again_is_served_on(unbounded: World, queue: str) -> None:
    transport, hand, lane = await unbounded.open(), Hand(), Lane(queue, "g")
    serve(transport, queue, hand)
    await transport.publish(grouped("a b", lane))

    (await hand.has(1))[0].leave(free_again)

    (await hand.has(2))[1].ack()
    await hand.has(3)
    assert hand.bodies == ["a", "a", "b"]


async def test_a_lane_that_was_left_is_served_when_something_new_comes(unbounded: World, queue: str) -> None:
    transport, hand, lane = await unbounded.open(), Hand(), Lane(queue, "g")
    serve(transport, queue, hand)
    await transport.publish(grouped("a", lane))
    (await hand.has(1))[0].leave(still_blocked)
    await eventually_depth(transport, lane, 1, 0)

    await transport.publish(grouped("b", lane))

    (await hand.has(2))[1].ack()
    await hand.has(3)
    assert hand.bodies == ["a", "a", "b"]


async def test_an_offer_while_a_lane_is_being_left_is_not_lost(unbounded: World, queue: str) -> None:
    transport, hand, lane = await unbounded.open(), Hand(), Lane(queue, "g")
    serve(transport, queue, hand)
    await transport.publish(grouped("a", lane))
    offered = asyncio.Event()

    async def ask() -> bool:
        await transport.offer([lane])
        offered.set()
        return True  # the answer is older than the offer

    (await hand.has(1))[0].leave(ask)

    await asyncio.wait_for(offered.wait(), 10)
    await hand.has(2)
    assert hand.bodies == ["a", "a"]


async def test_a_lane_may_be_left_by_several_deliveries_at_once(unbounded: World, queue: str) -> None:
    transport, hand, lane = await unbounded.open(), Hand(), Lane(queue, "g", seats=2)
    serve(transport, queue, hand)
    await transport.publish(grouped("a b c", lane))

    for delivery in await hand.has(2):
        delivery.leave(still_blocked)
    await eventually_depth(transport, lane, 3, 0)
    await transport.offer([lane])

    await hand.has(4)
    assert sorted(hand.bodies[2:4]) == ["a", "b"]


# -- offers, looks, and lanes that are over ---------------------------------------------------------------


async def test_an_offer_of_what_is_not_there_or_empty_does_nothing(unbounded: World, queue: str) -> None:
    transport, hand = await unbounded.open(), AckingHand()
    unknown, drained = Lane(queue, "unknown"), Lane(queue, "drained")
    serve(transport, queue, hand, slots=1)
    await transport.publish(grouped("a", drained))
    await hand.has(1)
    await eventually_depth(transport, drained, 0, 0)

    await transport.offer([unknown, drained, Lane(f"{queue}-never-used", "g")])

    await others_come(transport, queue, hand)
    assert hand.bodies[0] == "a"
    assert len(hand.bodies) == 2
    assert await transport.lane_depths([unknown]) == [None]


async def test_an_offer_of_a_lane_that_is_served_gives_it_no_second_seat(unbounded: World, queue: str) -> None:
    transport, hand, lane = await unbounded.open(), Hand(), Lane(queue, "g")
    serve(transport, queue, hand)
    await transport.publish(grouped("a b", lane))
    await hand.has(1)

    await transport.offer([lane])

    await others_come(transport, queue, hand)
    assert bodies_of(hand, lane) == ["a"]


async def test_a_look_tells_what_waits_and_who_serves(unbounded: World, queue: str) -> None:
    transport, hand = await unbounded.open(), Hand()
    lane, other = Lane(queue, "g"), Lane(queue, "unknown")
    await transport.publish(grouped("a b c", lane))
    assert await transport.lane_depths([other, lane]) == [None, QueueDepth(3, 0)]

    serve(transport, queue, hand)

    await hand.has(1)
    served = await lane_depth(transport, lane)
    assert served.consumers == 1
    assert served.ready <= 2  # what a broker has sent ahead waits no more
    for count in (1, 2, 3):
        (await hand.has(count))[-1].ack()
    await eventually_empty(transport, lane)


async def test_a_lane_that_was_forgotten_is_made_again(unbounded: World, queue: str) -> None:
    transport, hand, lane = await unbounded.open(), AckingHand(), Lane(queue, "g")
    serve(transport, queue, hand, slots=1)
    await transport.publish(grouped("a", lane))
    await hand.has(1)
    await eventually_depth(transport, lane, 0, 0)

    await transport.forget_lanes([lane, Lane(queue, "unknown")])

    assert await transport.publish(grouped("b", lane)) == [Published()]
    await hand.has(2)
    assert hand.bodies == ["a", "b"]


async def test_a_forgotten_lane_is_gone(classic: World, queue: str) -> None:
    transport, hand, lane = await classic.open(), AckingHand(), Lane(queue, "g")
    serve(transport, queue, hand, slots=1)
    await transport.publish(grouped("a", lane))
    await hand.has(1)
    await eventually_depth(transport, lane, 0, 0)

    await transport.forget_lanes([lane])

    async def is_gone() -> bool:
        return await transport.lane_depths([lane]) == [None]

    await eventually(is_gone, why="the lane to be gone")


async def test_a_lane_that_was_idle_for_its_time_is_forgotten(classic: World, queue: str) -> None:
    transport, hand, lane = await classic.open(), AckingHand(), Lane(queue, "g")
    serve(transport, queue, hand, fairness=Fairness(idle=timedelta(milliseconds=100)))
    await transport.publish(grouped("a", lane))
    await hand.has(1)

    async def is_gone() -> bool:
        return await transport.lane_depths([lane]) == [None]

    await eventually(is_gone, why="the lane to be forgotten")


async def test_a_lane_with_messages_is_not_forgotten(unbounded: World, queue: str) -> None:
    transport, hand = await unbounded.open(), Hand()
    waiting, served = Lane(queue, "waiting"), Lane(f"{queue}2", "served")
    serve(transport, served.queue, hand)
    await transport.publish([*grouped("a", waiting), *grouped("b", served)])
    await hand.has(1)

    await transport.forget_lanes([waiting, served])

    assert await transport.lane_depths([waiting, served]) == [QueueDepth(1, 0), QueueDepth(0, 1)]


async def test_without_a_broker_looking_at_lanes_is_an_error(world: World, queue: str) -> None:
    transport, lane = await world.without_broker(), Lane(queue, "g")

    for ask in (transport.offer, transport.lane_depths, transport.forget_lanes):
        with pytest.raises(TransportError):
            await ask([lane])
