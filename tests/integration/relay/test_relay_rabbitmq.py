"""The relay on RabbitMQ: shared queues, which lose messages, and connections, which break."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from jq_actors.events import Redispatched
from jq_actors.model.claim_rules import Verdict
from jq_actors.model.outcome import Succeeded
from tests.support.amqp import Probe
from tests.support.proxy import TcpProxy
from tests.support.waiting import eventually

from .relaying import QUEUE, MakeTransport, RelayingWorker, rabbitmq, working

LONG_AGO = timedelta()
"""As ``stale_after``: every published row is old enough to be missed."""
MakeProxy = Callable[[str], TcpProxy]


class Broker:
    """The server, the place in it, and a look from outside."""

    def __init__(self, server: Any, namespace: str, proxy: TcpProxy) -> None:
        self.url, self.namespace, self.proxy = server.url, namespace, proxy
        self.name = f"{namespace}.{QUEUE}"

    @property
    def direct(self) -> MakeTransport:
        return rabbitmq(self.url, self.namespace)

    def through_proxy(self, **settings: Any) -> MakeTransport:
        return rabbitmq(self.proxy.url(self.url), self.namespace, **settings)

    def ready(self) -> int:
        with Probe(self.url) as probe:
            depth = probe.depth(self.name)
        return 0 if depth is None else depth[0]

    def take(self, count: int) -> list[str]:
        """Take messages away, as nobody should."""
        with Probe(self.url) as probe:
            return [got.body.decode() for _ in range(count) if (got := probe.get(self.name)) is not None]


@pytest.fixture
def broker(rabbitmq: Any, tcp_proxy: MakeProxy) -> Iterator[Broker]:
    # Not `amqp_namespace`: it lists the queues of the server, and here the only one is known.
    broker = Broker(rabbitmq, f"t{secrets.token_hex(5)}", tcp_proxy(rabbitmq.url))
    yield broker
    with Probe(broker.url) as probe:
        probe.delete(broker.name)


def words(count: int) -> list[str]:
    return [f"{number}" for number in range(count)]


async def published(worker: RelayingWorker, count: int) -> None:
    """Rows that are surely at the broker."""
    await worker.insert(words(count))
    await worker.publish_all()


async def look_for_missing(worker: RelayingWorker) -> int:
    """Two counts, as a shortage is believed only then; then publish."""
    await worker.relay.count_missing()
    await worker.relay.count_missing()
    return await worker.relay.publish_missing()


# -- unpublished ------------------------------------------------------------------------------------------


async def test_relays_that_race_publish_each_row_once_and_in_order(store_url: str, broker: Broker) -> None:
    async with working(store_url, broker.direct) as one, working(store_url, broker.direct) as other:
        await one.insert(words(400))
        await one.publish_all()
        await one.insert(words(1500))

        while sum(await asyncio.gather(one.relay.publish_unpublished(), other.relay.publish_unpublished())):
            pass

        await eventually(lambda: broker.ready() == 1900, why="all rows to be at the broker, once")
        assert broker.take(400) == words(400)
        assert sorted(map(int, broker.take(2000))) == list(range(1500))


async def test_rows_of_a_queue_that_this_worker_does_not_serve_are_published_too(
    sqlite_url: str, broker: Broker
) -> None:
    async with working(sqlite_url, broker.direct, queues=["other"]) as worker:
        await published(worker, 3)

        assert broker.ready() == 3


# -- missing ----------------------------------------------------------------------------------------------


async def test_what_was_purged_behind_our_back_is_published_again(store_url: str, broker: Broker) -> None:
    async with working(store_url, broker.direct, record=[Redispatched], stale_after=LONG_AGO) as worker:
        await published(worker, 20)
        await worker.transport.purge(QUEUE)

        assert await look_for_missing(worker) == 20

        worker.consume()
        await worker.has(20)
        assert worker.bodies == words(20)
        assert {delivery.dispatch for delivery in worker.deliveries} == {1}
        assert worker.recorder.seen[-1] == Redispatched("missing", 20)
        assert await look_for_missing(worker) == 0


async def test_as_many_as_are_missing_are_published_again(sqlite_url: str, broker: Broker) -> None:
    async with working(sqlite_url, broker.direct, stale_after=LONG_AGO) as worker:
        await published(worker, 20)
        assert broker.take(7) == words(7)

        assert await look_for_missing(worker) == 7
        assert await worker.relay.publish_missing() == 0

        assert broker.take(20) == [*words(20)[7:], *words(7)]


async def test_a_copy_too_many_is_refused_by_the_claim(store_url: str, broker: Broker) -> None:
    async with working(store_url, broker.direct, stale_after=LONG_AGO) as worker:
        [job_id] = await worker.insert(["a"])
        await worker.publish_all()
        [copy] = broker.take(1)
        assert await look_for_missing(worker) == 1
        with Probe(broker.url) as probe:  # it was not lost after all
            probe.publish(broker.name, copy.encode())
        worker.consume()
        await worker.has(2)

        claim, token = await worker.claim(job_id)
        assert claim.verdict is Verdict.GRANT
        assert (await worker.claim(job_id))[0].verdict is Verdict.HOLD
        await worker.settle(job_id, token, Succeeded())
        assert (await worker.claim(job_id))[0].verdict is Verdict.DROP_FINAL


async def test_what_is_at_the_broker_or_held_by_a_worker_is_not_missing(sqlite_url: str, broker: Broker) -> None:
    async with (
        working(sqlite_url, broker.direct, stale_after=LONG_AGO) as worker,
        working(sqlite_url, broker.direct) as busy,
    ):
        await published(worker, 20)
        busy.consume(prefetch=5, ack=False)
        await busy.has(5)
        await busy.store.heartbeat({QUEUE: 5})

        assert await look_for_missing(worker) == 0

        await eventually(lambda: broker.ready() == 15, why="five of twenty to be held")


async def test_what_this_worker_holds_is_counted_as_it_is_now(sqlite_url: str, broker: Broker) -> None:
    held = {QUEUE: 0}
    async with working(sqlite_url, broker.direct, stale_after=LONG_AGO, held=lambda: held) as worker:
        await published(worker, 5)
        worker.consume(ack=False)
        await worker.has(5)
        held[QUEUE] = 5

        assert await look_for_missing(worker) == 0


async def test_a_shortage_is_believed_only_when_it_is_seen_twice(sqlite_url: str, broker: Broker) -> None:
    async with working(sqlite_url, broker.direct, stale_after=LONG_AGO) as worker:
        await published(worker, 5)
        worker.consume(ack=False)
        await worker.has(5)

        await worker.relay.count_missing()  # its heartbeat does not tell yet what it holds
        assert await worker.relay.publish_missing() == 0
        await worker.store.heartbeat({QUEUE: 5})
        await worker.relay.count_missing()

        assert await worker.relay.publish_missing() == 0


async def test_what_only_the_second_count_sees_is_not_believed_yet(sqlite_url: str, broker: Broker) -> None:
    async with working(sqlite_url, broker.direct, stale_after=LONG_AGO) as worker:
        await published(worker, 5)
        worker.consume(ack=False)
        await worker.has(5)
        await worker.store.heartbeat({QUEUE: 3})
        await worker.relay.count_missing()
        await worker.store.heartbeat({})
        await worker.relay.count_missing()

        assert await worker.relay.publish_missing() == 2


async def test_a_row_that_was_published_a_moment_ago_is_not_missed(sqlite_url: str, broker: Broker) -> None:
    async with working(sqlite_url, broker.direct) as worker:
        await worker.relay.count_missing()  # the connection is not new any more
        await published(worker, 5)
        broker.take(5)

        assert await look_for_missing(worker) == 0


async def test_after_a_reconnect_to_an_empty_broker_all_rows_are_published_again_at_once(
    store_url: str, broker: Broker
) -> None:
    interval = timedelta(milliseconds=50)
    async with working(store_url, broker.through_proxy(), stale_after=timedelta(hours=1), interval=interval) as worker:
        worker.consume(prefetch=1, ack=False)
        await published(worker, 1200)
        await worker.has(1)
        async with worker.relaying():
            broker.proxy.refuse()
            broker.proxy.cut()
            await eventually(lambda: not worker.transport.health.connected, why="the connection to be lost")
            with Probe(broker.url) as probe:
                probe.delete(broker.name)
            broker.proxy.accept()

            await eventually(lambda: broker.ready() == 1199, 30, "all rows to be at the broker again, once")


# -- a broker that is away --------------------------------------------------------------------------------


async def test_while_the_broker_is_away_rows_are_left_alone_and_sent_when_it_is_back(
    store_url: str, broker: Broker
) -> None:
    interval = timedelta(milliseconds=50)
    async with (
        working(store_url, broker.through_proxy(), interval=interval) as cut_off,
        working(store_url, broker.direct) as connected,
    ):
        broker.proxy.refuse()
        broker.proxy.cut()
        await eventually(lambda: not cut_off.transport.health.connected, why="the connection to be lost")
        await cut_off.insert(["a"])

        assert await cut_off.relay.publish_unpublished() == 0
        assert await cut_off.relay.publish_due() == 0
        assert await connected.relay.publish_unpublished() == 1

        await cut_off.insert(["b"])
        async with cut_off.relaying():
            broker.proxy.accept()
            await eventually(lambda: broker.ready() == 2, 30, "the other row to be sent")


async def test_what_the_broker_refused_is_free_for_others_after_its_pause(sqlite_url: str, broker: Broker) -> None:
    async with (
        working(sqlite_url, broker.through_proxy(confirm_timeout=timedelta(milliseconds=500))) as cut_off,
        working(sqlite_url, broker.direct) as connected,
    ):
        await cut_off.insert(words(3))
        with Probe(broker.url) as probe:  # of other arguments than ours: what is sent there is returned
            probe.declare(broker.name, {"x-max-priority": 3, "x-max-length": 0, "x-overflow": "reject-publish"})

        assert await cut_off.relay.publish_unpublished() == 3
        with Probe(broker.url) as probe:
            probe.delete(broker.name)

        assert await connected.relay.publish_unpublished() == 0, "it must not hold up others"

        async def is_published() -> bool:
            return await connected.relay.publish_unpublished() == 3

        await eventually(is_published, why="the pause to be over")
        assert broker.ready() == 3


async def test_what_may_have_been_sent_stays_leased(sqlite_url: str, broker: Broker) -> None:
    async with (
        working(
            sqlite_url,
            broker.through_proxy(confirm_timeout=timedelta(milliseconds=300)),
            publish_lease=timedelta(seconds=1),
        ) as frozen,
        working(sqlite_url, broker.direct) as connected,
    ):
        await published(frozen, 1)
        await frozen.insert(["b"])
        broker.proxy.freeze()

        assert await frozen.relay.publish_unpublished() == 1
        assert await connected.relay.publish_unpublished() == 0

        await eventually(connected.relay.publish_unpublished, why="the lease to be over")
        broker.proxy.thaw()
