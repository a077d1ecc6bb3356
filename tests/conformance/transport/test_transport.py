"""What `transport.port` promises, on every adapter: line by line."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter

import pytest

from jq_actors.errors import TransportError
from jq_actors.events import AckLost
from jq_actors.transport.port import Deferred, NotPublished, Published, Transport
from tests.support.amqp import Probe
from tests.support.waiting import eventually

from .transports import (
    PRIORITY_QUEUE,
    AckingHand,
    Hand,
    RabbitWorld,
    World,
    clock,
    eventually_ready,
    job,
    jobs,
    ready_of,
)

# -- start and connection ---------------------------------------------------------------------------------


async def test_starting_returns_at_once_and_the_connection_comes_by_itself(world: World) -> None:
    transport = world.make()

    await asyncio.wait_for(transport.start(), 1)

    assert await transport.wait_connected(20)
    assert transport.health.connected


async def test_without_a_broker_it_says_so_and_does_not_raise(world: World, queue: str) -> None:
    transport = await world.without_broker()

    assert not await transport.wait_connected(0.2)
    assert not transport.health.connected
    assert [type(result) for result in await transport.publish(jobs("a b c", queue))] == [NotPublished] * 3


async def test_without_a_broker_looking_at_a_queue_is_an_error(world: World, queue: str) -> None:
    transport = await world.without_broker()

    with pytest.raises(TransportError):
        await transport.depth(queue)
    with pytest.raises(TransportError):
        await transport.purge(queue)


async def test_check_describes_the_broker_without_its_secrets_and_finds_no_problem(world: World, queue: str) -> None:
    transport = await world.open()
    transport.want(queue, 1, Hand())
    await _consumed(transport, queue)

    report = await transport.check([queue])

    assert report.problems == ()
    assert report.description
    assert "guest:guest" not in report.description


# -- publishing -------------------------------------------------------------------------------------------


async def test_an_empty_batch_has_no_results(world: World) -> None:
    transport = await world.open()

    assert await transport.publish([]) == []


async def test_publishing_waits_for_the_connection(unbounded: World, queue: str) -> None:
    transport = unbounded.make()
    await transport.start()

    assert await transport.publish(jobs("a", queue)) == [Published()]


async def test_each_message_has_its_result_and_each_queue_its_order(unbounded: World, queue: str) -> None:
    transport = await unbounded.open()
    batch = [job(f"{n}", f"{queue}{n % 3}") for n in range(1500)]

    results = await transport.publish(batch)

    assert results == [Published()] * 1500
    for part in range(3):
        hand = AckingHand()
        transport.want(f"{queue}{part}", 100, hand)
        await hand.has(500)
        assert hand.bodies == [str(n) for n in range(part, 1500, 3)]


async def test_publishers_do_not_mix_up_their_results(unbounded: World, queue: str) -> None:
    transport = await unbounded.open()
    hand = AckingHand()
    transport.want(queue, 100, hand)

    batches = [[job(f"{task}-{n}", queue) for n in range(50)] for task in range(20)]
    results = await asyncio.gather(*(transport.publish(batch) for batch in batches))

    assert results == [[Published()] * 50] * 20
    await hand.has(1000)
    assert Counter(hand.bodies) == Counter(f"{task}-{n}" for task in range(20) for n in range(50))


@pytest.mark.parametrize("body", [b"", b"\x00\xff\xce" * 7, bytes(range(256)) * 2000], ids=["empty", "binary", "large"])
async def test_a_body_arrives_as_it_was(world: World, queue: str, body: bytes) -> None:
    transport = await world.open()
    hand = AckingHand()
    transport.want(queue, 1, hand)
    message = job("", queue)

    await transport.publish([type(message)(message.job_id, 1, queue, body)])

    [delivery] = await hand.has(1)
    assert delivery.body == body
    assert delivery.queue == queue


async def test_a_queue_that_does_not_exist_is_made(unbounded: World, queue: str) -> None:
    transport = await unbounded.open()
    assert await transport.depth(queue) is None

    assert await transport.publish(jobs("a b", queue)) == [Published()] * 2

    assert await ready_of(transport, queue) == 2


async def test_a_cancelled_publisher_harms_nobody_else(unbounded: World, queue: str) -> None:
    transport = await unbounded.open()
    hand = AckingHand()
    transport.want(queue, 50, hand)
    # RabbitMQ 3.10 ends a connection that consumes a quorum queue which another is just declaring.
    await _consumed(transport, queue)
    generation = transport.generation

    for turns in range(40):
        publishing = asyncio.create_task(transport.publish([job(f"cancelled-{turns}-{n}", queue) for n in range(5)]))
        for _ in range(turns):
            await asyncio.sleep(0)
        publishing.cancel()
        await asyncio.wait([publishing])
        assert await transport.publish(jobs(f"kept-{turns}", queue)) == [Published()]

    await eventually(lambda: sum("kept" in body for body in hand.bodies) == 40, why="what was not cancelled")
    assert max(Counter(hand.bodies).values()) == 1
    assert transport.generation == generation


async def test_a_closed_transport_publishes_nothing(world: World, queue: str) -> None:
    transport = await world.open()
    transport.want(queue, 5, Hand())
    await transport.close()

    [result] = await transport.publish(jobs("late", queue))

    assert isinstance(result, NotPublished)
    assert "late" not in await _left(world, transport, queue)


# -- consuming --------------------------------------------------------------------------------------------


async def test_a_wanted_queue_is_consumed_and_healthy(world: World, queue: str) -> None:
    transport = await world.open()

    transport.want(queue, 1, Hand())

    await _consumed(transport, queue)
    await _confirmed(transport)
    assert not transport.health.broken


async def test_a_queue_may_be_wanted_before_the_connection(world: World, queue: str) -> None:
    transport, hand = world.make(), AckingHand()
    transport.want(queue, 5, hand)

    await transport.start()
    await _consumed(transport, queue)
    await transport.publish(jobs("a", queue))

    await hand.has(1)


async def test_no_more_than_the_prefetch_is_unacked(unbounded: World, queue: str) -> None:
    transport, hand = await unbounded.open(), Hand()
    await transport.publish(jobs("a b c d e f", queue))

    transport.want(queue, 2, hand)

    await hand.has(2)
    await eventually_ready(transport, queue, 4)
    assert hand.bodies == ["a", "b"]
    hand.deliveries[0].ack()
    await hand.has(3)
    await eventually_ready(transport, queue, 3)
    assert hand.bodies == ["a", "b", "c"]


async def test_the_prefetch_is_that_of_each_queue(unbounded: World, queue: str) -> None:
    transport, first, second = await unbounded.open(), Hand(), Hand()
    await transport.publish([*jobs("a b c", f"{queue}1"), *jobs("x y z", f"{queue}2")])

    transport.want(f"{queue}1", 1, first)
    transport.want(f"{queue}2", 2, second)

    await first.has(1)
    await second.has(2)
    await eventually_ready(transport, f"{queue}1", 2)
    await eventually_ready(transport, f"{queue}2", 1)
    assert (first.bodies, second.bodies) == (["a"], ["x", "y"])


async def test_deliveries_out_of_order_are_acked_one_by_one(unbounded: World, queue: str) -> None:
    transport, hand = await unbounded.open(), Hand()
    await transport.publish([job(f"{n}", queue) for n in range(20)])
    transport.want(queue, 20, hand)
    deliveries = await hand.has(20)

    for delivery in [*deliveries[10:20], *deliveries[0:5]]:
        delivery.ack()
    await transport.close()

    assert await _left(unbounded, transport, queue, 5) == ["5", "6", "7", "8", "9"]


async def test_the_dispatch_number_is_carried(world: World, queue: str) -> None:
    transport, hand = await world.open(), AckingHand()
    transport.want(queue, 5, hand)

    await transport.publish([job("a", queue), job("b", queue, dispatch=7), job("c", queue, dispatch=12345)])

    assert [delivery.dispatch for delivery in await hand.has(3)] == [1, 7, 12345]


async def test_a_message_of_a_foreign_producer_is_dispatch_one(broker: RabbitWorld, queue: str) -> None:
    transport, hand = await broker.open(), AckingHand()
    transport.want(queue, 5, hand)
    await _consumed(transport, queue)

    with Probe(broker.url) as probe:
        probe.publish(f"{broker.namespace}.{queue}", b"foreign")

    [delivery] = await hand.has(1)
    assert (delivery.dispatch, delivery.body, delivery.redelivered) == (1, b"foreign", False)


async def test_higher_priorities_come_first_and_equal_ones_in_order(classic: World) -> None:
    queue = PRIORITY_QUEUE
    transport, hand = await classic.open(), AckingHand()
    priorities = [0, 9, 4, 0, 9, 4, 1]
    await transport.publish([job(f"{p}{n}", queue, priority=p) for n, p in enumerate(priorities)])

    transport.want(queue, 1, hand)

    await hand.has(7)
    assert hand.bodies == ["91", "94", "42", "45", "16", "00", "03"]


async def test_two_workers_share_a_queue(broker: RabbitWorld, queue: str) -> None:
    transports, hands = [await broker.open() for _ in range(2)], [AckingHand(), AckingHand()]
    for transport, hand in zip(transports, hands, strict=True):
        transport.want(queue, 5, hand)
        await _confirmed(transport)

    await transports[0].publish([job(f"{n}", queue) for n in range(200)])

    await eventually(lambda: sum(len(hand.deliveries) for hand in hands) >= 200, why="all to be delivered")
    assert Counter(itertools.chain(*(hand.bodies for hand in hands))) == Counter(str(n) for n in range(200))
    assert all(hand.deliveries for hand in hands)


# -- the three endings ------------------------------------------------------------------------------------


async def test_what_is_given_back_comes_again_and_before_the_rest(unbounded: World, queue: str) -> None:
    transport, hand = await unbounded.open(), Hand()
    await transport.publish(jobs("a b c d", queue))
    transport.want(queue, 2, hand)
    first, _ = await hand.has(2)

    first.requeue()

    again = (await hand.has(3))[2]
    assert (again.body, again.redelivered, first.redelivered) == (b"a", True, False)
    again.ack()
    await hand.has(4)
    assert hand.bodies == ["a", "b", "a", "c"]


async def test_what_is_given_back_in_order_waits_in_order_before_the_rest(unbounded: World, queue: str) -> None:
    transport, hand = await unbounded.open(), Hand()
    await transport.publish(jobs("a b c d e", queue))
    transport.want(queue, 3, hand)
    deliveries = await hand.has(3)
    await transport.stop_intake()

    for delivery in deliveries:
        delivery.requeue()
    await eventually_ready(transport, queue, 5)
    await transport.close()

    assert await _left(unbounded, transport, queue, 5) == ["a", "b", "c", "d", "e"]


async def test_what_is_given_back_has_its_old_place(classic: World, queue: str) -> None:
    transport, hand = await classic.open(), Hand()
    await transport.publish(jobs("a b c d e", queue))
    transport.want(queue, 3, hand)
    a, b, c = await hand.has(3)
    await transport.stop_intake()

    for delivery in (c, a, b):
        delivery.requeue()
    await eventually_ready(transport, queue, 5)
    await transport.close()

    assert await _left(classic, transport, queue, 5) == ["a", "b", "c", "d", "e"]


async def test_what_is_acked_does_not_come_again(world: World, queue: str) -> None:
    transport, hand = await world.open(), AckingHand()
    transport.want(queue, 5, hand)
    await transport.publish(jobs("a b", queue))
    await hand.has(2)

    await transport.close()

    assert await _left(world, transport, queue) == []


async def test_what_is_buried_lies_in_the_dead_queue_with_its_reason(world: World, queue: str) -> None:
    transport, hand = await world.open(), Hand()
    transport.want(queue, 5, hand)
    await transport.publish(jobs("a b", queue))
    buried, kept = await hand.has(2)

    buried.bury("no JSON: line 1, “x”")

    dead = await eventually(lambda: world.dead_letters(queue), why="the dead letter")
    assert [body for body, _ in dead] == [b"a"]
    assert "no JSON: line 1, “x”" in dead[0][1]
    kept.ack()
    await transport.close()
    assert await _left(world, transport, queue) == []


async def test_an_ending_after_the_close_is_counted_and_forgotten(world: World, queue: str) -> None:
    transport, hand = await world.open(), Hand()
    transport.want(queue, 5, hand)
    await transport.publish(jobs("a b c", queue))
    acked, requeued, buried = await hand.has(3)
    await transport.close()

    acked.ack()
    requeued.requeue()
    buried.bury("too late")

    assert [event.queue for event in world.recorder.of(AckLost)] == [queue] * 3
    assert world.dead_letters(queue) == []
    assert await _left(world, transport, queue, 3) == ["a", "b", "c"]


async def test_a_late_ending_does_not_touch_the_next_delivery_of_the_same_message(world: World, queue: str) -> None:
    transport, hand = await world.open(), Hand()
    transport.want(queue, 5, hand)
    await transport.publish(jobs("a", queue))
    [late] = await hand.has(1)
    await transport.close()
    again, second = await world.reopen(transport), Hand()
    again.want(queue, 5, second)
    [redelivered] = await second.has(1)

    late.ack()

    assert redelivered.redelivered
    await again.close()
    assert await _left(world, again, queue, 1) == ["a"]


# -- the end ----------------------------------------------------------------------------------------------


async def test_after_stop_intake_nothing_is_delivered_and_deliveries_stay_valid(unbounded: World, queue: str) -> None:
    transport, hand = await unbounded.open(), Hand()
    transport.want(queue, 2, hand)
    await transport.publish(jobs("a b c", queue))
    await hand.has(2)

    await transport.stop_intake()
    await transport.publish(jobs("d", queue))
    for delivery in tuple(hand.deliveries):
        delivery.ack()
    await transport.close()

    assert hand.bodies == ["a", "b"]
    assert unbounded.recorder.of(AckLost) == []
    assert await _left(unbounded, transport, queue, 2) == ["c", "d"]


async def test_closing_sends_the_acks_that_are_due(unbounded: World, queue: str) -> None:
    transport, hand = await unbounded.open(), Hand()
    await transport.publish([job(f"{n}", queue) for n in range(300)])
    transport.want(queue, 300, hand)
    for delivery in await hand.has(300):
        delivery.ack()

    await transport.close()

    assert await _left(unbounded, transport, queue) == []


async def test_closing_gives_back_what_is_unacked(world: World, queue: str) -> None:
    transport, hand = await world.open(), Hand()
    transport.want(queue, 3, hand)
    await transport.publish(jobs("a b c", queue))
    (await hand.has(3))[1].ack()

    await transport.close()

    again, second = await world.reopen(transport), Hand()
    again.want(queue, 5, second)
    deliveries = await second.has(2)
    assert [delivery.body for delivery in deliveries] == [b"a", b"c"]
    assert all(delivery.redelivered for delivery in deliveries)


async def test_closing_twice_is_harmless(world: World, queue: str) -> None:
    transport = await world.open()
    transport.want(queue, 1, Hand())

    await transport.close()
    await transport.close()

    assert not transport.health.connected


# -- looking at queues ------------------------------------------------------------------------------------


async def test_depth_counts_what_waits_and_who_consumes(unbounded: World, queue: str) -> None:
    transport = await unbounded.open()
    await transport.publish(jobs("a b c", queue))
    before = await transport.depth(queue)

    transport.want(queue, 2, Hand())
    await _consumed(transport, queue)

    assert before is not None
    assert (before.ready, before.consumers) == (3, 0)
    await eventually_ready(transport, queue, 1)


async def test_purging_throws_away_what_waits_and_nothing_else(unbounded: World, queue: str) -> None:
    transport, hand = await unbounded.open(), Hand()
    await transport.publish(jobs("a b c", queue))
    transport.want(queue, 1, hand)
    await hand.has(1)
    await eventually_ready(transport, queue, 2)

    assert await transport.purge(queue) == 2

    await transport.close()
    assert await _left(unbounded, transport, queue, 1) == ["a"]


async def test_there_is_nothing_to_purge_in_no_queue(world: World, queue: str) -> None:
    transport = await world.open()

    assert await transport.purge(queue) == 0


# -- delays -----------------------------------------------------------------------------------------------


async def test_a_short_delay_is_not_kept_by_a_long_one(unbounded: World, queue: str) -> None:
    transport, hand = await unbounded.open(), AckingHand()
    transport.want(queue, 10, hand)
    begun = clock.monotonic()

    delays = {"long": 1.2, "longest": 3600.0, "short": 0.3, "none": None}
    results = await transport.publish([job(body, queue, delay=delay) for body, delay in delays.items()])

    assert results == [Published()] * 4
    await hand.has(2)
    assert clock.monotonic() - begun >= 0.3
    await hand.has(3)
    assert clock.monotonic() - begun >= 1.2
    assert hand.bodies == ["none", "short", "long"]


# -- connections that break -------------------------------------------------------------------------------


async def test_a_broken_connection_is_made_anew_and_consumes_what_was_wanted(broker: RabbitWorld, queue: str) -> None:
    transport, hand = await broker.open(), Hand()
    transport.want(queue, 5, hand)
    await transport.publish(jobs("a", queue))
    [lost] = await hand.has(1)
    before = transport.generation

    broker.proxy.cut()

    [_, again] = await hand.has(2, timeout=30)
    assert transport.generation > before >= 1
    assert (again.body, again.redelivered) == (b"a", True)
    lost.ack()
    assert [event.queue for event in broker.recorder.of(AckLost)] == [queue]
    again.ack()
    assert await transport.publish(jobs("b", queue)) == [Published()]
    [*_, last] = await hand.has(3)
    assert last.body == b"b"


# -- queues with rows behind them --------------------------------------------------------------------------


async def test_with_rows_a_queue_that_nobody_here_wants_is_deferred(with_rows: World, queue: str) -> None:
    transport = await with_rows.open()

    assert await transport.publish([job("a", queue), job("b", queue, relayed=True)]) == [Deferred()] * 2
    assert transport.capacity(queue) == 0


async def test_with_rows_a_queue_takes_what_is_worked_on_and_a_little_more(with_rows: World, queue: str) -> None:
    transport, hand = await with_rows.open(), Hand()
    transport.want(queue, 4, hand)
    assert transport.capacity(queue) == 8

    results = await transport.publish([job(f"{n}", queue) for n in range(20)])

    taken = results.count(Published())
    assert 4 < taken <= 8
    assert results == [Published()] * taken + [Deferred()] * (20 - taken)
    await hand.has(4)
    assert transport.capacity(queue) == 8 - taken


async def test_with_rows_the_relay_is_not_starved_by_new_sendings(with_rows: World, queue: str) -> None:
    transport, hand = await with_rows.open(), Hand()
    transport.want(queue, 2, hand)
    await transport.publish([job(f"new{n}", queue) for n in range(10)])

    assert transport.capacity(queue) > 0
    assert await transport.publish([job("old", queue, relayed=True)]) == [Published()]


async def test_without_rows_there_is_always_room(unbounded: World, queue: str) -> None:
    transport = await unbounded.open()

    assert transport.capacity(queue) >= 1_000_000


# -- looks from outside -----------------------------------------------------------------------------------


async def _consumed(transport: Transport, queue: str) -> None:
    async def is_consumed() -> bool:
        depth = await transport.depth(queue)
        return depth is not None and depth.consumers == 1

    assert await transport.wait_connected(20)
    await eventually(is_consumed, why=f"a consumer of {queue}")


async def _confirmed(transport: Transport) -> None:
    await eventually(lambda: not transport.health.missing, why="all consumers to be confirmed")


async def _left(world: World, closed: Transport, queue: str, at_least: int = 0) -> list[str]:
    """What the queue of a closed transport holds, once it has at least so much: a broker returns it a moment later."""
    transport, hand = await world.reopen(closed), Hand()

    async def is_back() -> bool:
        depth = await transport.depth(queue)
        return (0 if depth is None else depth.ready) >= at_least

    await eventually(is_back, why=f"{at_least} messages to be back in {queue}")
    depth = await transport.depth(queue)
    count = 0 if depth is None else depth.ready
    transport.want(queue, max(count, 1), hand)
    await hand.has(count)
    await transport.close()
    return hand.bodies
