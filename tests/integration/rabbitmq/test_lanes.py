"""Lanes on RabbitMQ: several workers, dying connections, and what the broker is asked to hold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from jq_actors.events import BrokerDisconnected, LaneClosed, LaneOpened
from jq_actors.model.lane import Fairness, Lane
from jq_actors.transport.port import Outgoing, Published
from jq_actors.transport.rabbitmq.lane_names import token_of
from tests.conformance.transport.lanes import WorkingHand, eventually_empty, grouped, serve
from tests.conformance.transport.transports import Hand
from tests.support.amqp import Probe
from tests.support.proxy import TcpProxy
from tests.support.rabbitmq import GivenRabbitMQ, PrivateRabbitMQ
from tests.support.waiting import eventually

from .rabbit import opened

Server = PrivateRabbitMQ | GivenRabbitMQ
Proxied = Callable[[str], TcpProxy]

pytestmark = pytest.mark.broker

GROUPS = [f"g{number}" for number in range(100)]


def numbered(lane: Lane, *numbers: int) -> list[Outgoing]:
    return grouped(" ".join(f"{lane.key}:{number}" for number in numbers), lane)


def first_times(hand: WorkingHand) -> dict[str, list[int]]:
    """What came of each group, without what came again."""
    return {group: list(dict.fromkeys(numbers)) for group, numbers in hand.numbers().items()}


# -- order ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_the_order_of_each_group_survives_the_death_of_a_worker(
    rabbitmq: Server, amqp_namespace: str, tcp_proxy: Proxied, queue_type: str
) -> None:
    """40 jobs in each of the groups, two workers; the connections of one are reset again and again."""
    proxy = tcp_proxy(rabbitmq.url)
    dying = opened(proxy.url(rabbitmq.url), amqp_namespace, queue_type=queue_type)
    groups, jobs = GROUPS if queue_type == "classic" else GROUPS[:20], 40
    lanes = [Lane("mail", group) for group in groups]
    hand = WorkingHand()
    async with opened(rabbitmq.url, amqp_namespace, queue_type=queue_type) as steady, dying as dies:
        for worker in (steady, dies):
            serve(worker.transport, "mail", hand, slots=30, fairness=Fairness(quantum=5))
        for number in range(jobs):
            batch = [message for lane in lanes for message in numbered(lane, number)]
            assert await steady.transport.publish(batch) == [Published()] * len(batch)
            if number % 15 == 8:
                proxy.cut()

        def all_came() -> bool:
            return sum(map(len, first_times(hand).values())) == len(groups) * jobs

        await eventually(all_came, 60, "all jobs")
        assert first_times(hand) == {group: list(range(jobs)) for group in groups}
        assert dies.told.of(BrokerDisconnected)


async def test_seats_are_counted_over_all_workers(rabbitmq: Server, amqp_namespace: str) -> None:
    lane, hand = Lane("mail", "g", seats=3), WorkingHand(0.005)
    async with opened(rabbitmq.url, amqp_namespace) as one, opened(rabbitmq.url, amqp_namespace) as other:
        for worker in (one, other):
            serve(worker.transport, "mail", hand, fairness=Fairness(quantum=4))
        for number in range(100):
            await one.transport.publish(numbered(lane, number))

        await hand.has(100, 30)
        assert sorted(hand.numbers()["g"]) == [*range(100)]
        assert hand.most == 3


# -- workers that come and go -----------------------------------------------------------------------------


async def test_a_worker_that_joins_late_has_its_share(rabbitmq: Server, amqp_namespace: str) -> None:
    """A22: although the first one had taken all lanes."""
    lanes = [Lane("mail", group) for group in GROUPS[:10]]
    first, late = WorkingHand(), WorkingHand()
    async with opened(rabbitmq.url, amqp_namespace) as one, opened(rabbitmq.url, amqp_namespace) as other:
        serve(one.transport, "mail", first, slots=20, fairness=Fairness(quantum=10))
        await one.transport.publish([message for lane in lanes for message in numbered(lane, *range(300))])
        await one.told.wait_for(LaneOpened, count=10)

        serve(other.transport, "mail", late, slots=20, fairness=Fairness(quantum=10))

        await eventually(lambda: len(first.deliveries) + len(late.deliveries) == 3000, 60, "all jobs")
        assert len(late.deliveries) > 500
        assert one.told.of(LaneClosed, lambda event: event.why == "handed over")


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_a_worker_that_stops_gives_back_in_order_and_what_is_in_hand_is_finished(
    rabbitmq: Server, amqp_namespace: str, queue_type: str
) -> None:
    lane, quiet, hand, next_hand = Lane("mail", "busy"), Lane("mail", "quiet"), Hand(), Hand()
    stops = opened(rabbitmq.url, amqp_namespace, queue_type=queue_type)
    async with stops as one, opened(rabbitmq.url, amqp_namespace, queue_type=queue_type) as other:
        serve(one.transport, "mail", hand)
        await one.transport.publish(numbered(lane, 0, 1, 2))
        [in_hand] = await hand.has(1)

        await one.transport.stop_intake()
        serve(other.transport, "mail", next_hand)
        await other.transport.publish([*numbered(lane, 3), *numbered(quiet, 0)])
        await next_hand.has(1)
        assert next_hand.bodies == ["quiet:0"]  # the busy one runs here
        assert in_hand.is_open
        in_hand.ack()

        for count in (2, 3, 4):
            (await next_hand.has(count))[-1].ack()
        assert next_hand.bodies == ["quiet:0", "busy:1", "busy:2", "busy:3"]
        assert hand.bodies == ["busy:0"]


async def test_the_token_of_a_worker_that_dies_brings_the_lane_to_another(
    rabbitmq: Server, amqp_namespace: str, tcp_proxy: Proxied
) -> None:
    proxy = tcp_proxy(rabbitmq.url)
    lane, dying, other_hand = Lane("mail", "g"), Hand(), Hand()
    dies = opened(proxy.url(rabbitmq.url), amqp_namespace, confirm_timeout=timedelta(seconds=1))
    async with opened(rabbitmq.url, amqp_namespace) as other, dies as worker:
        serve(worker.transport, "mail", dying)
        await worker.transport.publish(numbered(lane, 0))
        await dying.has(1)
        serve(other.transport, "mail", other_hand)

        proxy.refuse()
        proxy.cut()

        await other_hand.has(1, 30)
        assert other_hand.deliveries[0].redelivered


async def test_a_lane_deleted_under_its_server_is_made_again(rabbitmq: Server, amqp_namespace: str) -> None:
    lane, hand = Lane("mail", "g"), Hand()
    async with opened(rabbitmq.url, amqp_namespace) as broker:
        serve(broker.transport, "mail", hand)
        await broker.transport.publish(numbered(lane, 0))
        await hand.has(1)

        with Probe(rabbitmq.url) as probe:
            probe.delete(f"{amqp_namespace}.g.mail.g")

        await broker.told.wait_for(LaneClosed, lambda event: event.why == "lost")
        assert await broker.transport.publish(numbered(lane, 1)) == [Published()]
        await hand.has(2)
        assert hand.bodies == ["g:0", "g:1"]


# -- tokens -----------------------------------------------------------------------------------------------


async def test_a_token_that_names_no_lane_is_buried(rabbitmq: Server, amqp_namespace: str) -> None:
    async with opened(rabbitmq.url, amqp_namespace) as broker:
        hand = Hand()
        serve(broker.transport, "mail", hand)
        await broker.confirmed("lobby.mail")
        with Probe(rabbitmq.url) as probe:
            for token in (b"\xff", b"[]", b'{"queue": "mail"}', token_of(Lane("mail", "gone"))):
                probe.publish(f"{amqp_namespace}.lobby.mail", token)

            def are_buried() -> bool:
                return probe.depth(f"{amqp_namespace}.dead") == (3, 0)

            await eventually(are_buried, why="three dead letters")
        await broker.transport.publish(numbered(Lane("mail", "g"), 0))
        await hand.has(1)


async def test_a_token_held_for_too_long_is_kept_while_a_job_runs(private_rabbitmq: PrivateRabbitMQ) -> None:
    """Between two jobs the lane is handed over with a fresh one; while one job runs there is no between."""
    namespace = "long"
    async with opened(private_rabbitmq.url, namespace, delivery_timeout=timedelta(seconds=1.5)) as broker:
        lane, hand = Lane("mail", "g"), Hand()
        serve(broker.transport, "mail", hand)
        await broker.transport.publish(numbered(lane, 0, 1))
        [first] = await hand.has(1)

        def has_tokens() -> bool:
            return private_rabbitmq.queue_depths(namespace)[f"{namespace}.lobby.mail"] == 1

        await asyncio.sleep(1)  # longer than a third of the timeout; that a token stays has no event
        await eventually(has_tokens, why="the token")
        assert broker.told.of(LaneClosed) == []
        first.ack()

        (await hand.has(2))[1].ack()
        assert hand.bodies == ["g:0", "g:1"]
        await eventually_empty(broker.transport, lane)


async def test_many_lanes_need_few_channels(private_rabbitmq: PrivateRabbitMQ) -> None:
    lanes, hand = [Lane("mail", f"g{number}") for number in range(400)], Hand()
    async with opened(private_rabbitmq.url, "few") as broker:
        for queue in range(10):
            broker.transport.want(f"q{queue}", 5, Hand())
        serve(broker.transport, "mail", hand, slots=400)
        await broker.transport.publish([message for lane in lanes for message in numbered(lane, 0)])
        await hand.has(400, 30)

        channels = await asyncio.to_thread(private_rabbitmq.ctl, "list_channels", "pid")

        assert len(channels.splitlines()) <= 20
