"""The relay on real databases and real transports: each look by itself, and all of them running."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from jq_actors.errors import StoreUnavailableError
from jq_actors.events import JobFailed, JobsPruned, JobTakenOver, Redispatched, TaskFailed, WorkerLost
from jq_actors.model.claim_rules import Verdict
from jq_actors.model.job import JobState
from jq_actors.model.outcome import Failed, Failure, Retrying, Succeeded
from jq_actors.store.records import Dispatch, Leases, Recovery, Retention
from jq_actors.store.sql import SqlStore
from tests.support.waiting import eventually

from .relaying import QUEUE, dead_process, working

BOOM = Failure(ValueError("boom"), "ValueError: boom")


def words(count: int) -> list[str]:
    return [f"{number}" for number in range(count)]


# -- due rows ---------------------------------------------------------------------------------------------


async def test_a_row_is_published_when_it_is_due_and_not_before(store_url: str) -> None:
    async with working(store_url) as worker:
        worker.consume()
        await worker.insert(["a"], due_in=timedelta(seconds=1))
        due_at = worker.store.now() + timedelta(seconds=1)

        async with worker.relaying():  # looks again in an hour, if nothing tells it when
            await worker.has(1)

        late = worker.store.now() - due_at
        assert timedelta(milliseconds=-50) < late < timedelta(seconds=2)
        assert worker.deliveries[0].dispatch == 2


async def test_a_hundred_thousand_rows_of_the_far_future_do_not_hold_up_a_near_one(store_url: str) -> None:
    async with working(store_url) as worker:
        worker.consume()
        for _ in range(20):
            await worker.insert(["far"] * 5000, due_in=timedelta(days=30))
        async with worker.relaying():
            await worker.insert(["near"], due_in=timedelta(seconds=1))
            due_at = worker.store.now() + timedelta(seconds=1)
            worker.relay.wake()

            await worker.has(1)

        assert worker.store.now() - due_at < timedelta(seconds=2)
        assert worker.bodies == ["near"]
        assert (await worker.store.count_by_state())[JobState.SCHEDULED] == 100_000


async def test_a_retry_is_published_as_a_new_dispatch_when_it_is_due(store_url: str) -> None:
    async with working(store_url) as worker:
        worker.consume()
        [job_id] = await worker.insert(["a"])
        await worker.publish_all()
        await worker.end(job_id, Retrying(BOOM, timedelta(milliseconds=200)))

        async with worker.relaying():
            await worker.has(2)

        assert [delivery.dispatch for delivery in worker.deliveries] == [1, 2]
        assert (await worker.claim(job_id, dispatch=1))[0].verdict is Verdict.DROP_STALE
        assert (await worker.claim(job_id, dispatch=2))[0].verdict is Verdict.GRANT


async def test_more_due_rows_than_the_lane_has_room_for_wait_in_their_rows(store_url: str) -> None:
    async with working(store_url) as worker:
        worker.consume(prefetch=4, ack=False)
        await worker.insert(words(50), due_in=timedelta(milliseconds=1))

        await eventually(worker.relay.publish_due, why="the rows to be due")

        await worker.has(4)
        depth = await worker.transport.depth(QUEUE)
        assert depth is not None
        assert depth.ready + len(worker.deliveries) == 8


# -- unpublished rows -------------------------------------------------------------------------------------


async def test_unpublished_rows_are_published_in_their_order_and_once(store_url: str) -> None:
    async with working(store_url, record=[Redispatched]) as worker:
        worker.consume()
        await worker.insert(words(20))

        assert await worker.relay.publish_unpublished() == 20
        assert await worker.relay.publish_unpublished() == 0

        await worker.has(20)
        assert worker.bodies == words(20)
        assert worker.recorder.seen == [Redispatched("unpublished", 20)]


async def test_a_backlog_flows_through_a_small_lane_in_order_and_without_waiting_for_the_interval(
    store_url: str,
) -> None:
    async with working(store_url) as worker:
        worker.consume(prefetch=5)
        await worker.insert(words(1200))

        async with worker.relaying():
            await worker.has(1200)

        assert worker.bodies == words(1200)


async def test_a_wake_up_finds_a_row_at_once(store_url: str) -> None:
    async with working(store_url, record=[Redispatched]) as worker:
        worker.consume()
        await worker.insert(["a"])
        async with worker.relaying():
            await worker.recorder.wait_for(Redispatched)
            await worker.insert(["b"])

            worker.relay.wake()

            await worker.has(2)


async def test_a_row_whose_producer_died_before_publishing_is_published_after_its_lease(
    store_url: str,
) -> None:
    async with working(store_url) as worker:
        worker.consume()
        await worker.insert(["a"], lease=timedelta(seconds=1))

        assert await worker.relay.publish_unpublished() == 0
        await eventually(worker.relay.publish_unpublished, why="the producer's lease to be over")

        await worker.has(1)
        assert worker.deliveries[0].dispatch == 1


async def test_a_queue_that_nobody_here_consumes_is_left_to_others(store_url: str) -> None:
    async with working(store_url) as idle, working(store_url) as consuming:
        await idle.insert(["a"])
        consuming.consume()

        assert await idle.relay.publish_unpublished() == 0
        assert await consuming.relay.publish_unpublished() == 1

        await consuming.has(1)


async def test_relays_that_race_publish_each_row_once(store_url: str) -> None:
    async with working(store_url) as one, working(store_url) as other:
        one.consume()
        other.consume()
        await one.insert(words(1500))

        while sum(await asyncio.gather(one.relay.publish_unpublished(), other.relay.publish_unpublished())):
            pass

        await eventually(lambda: len(one.bodies + other.bodies) == 1500, why="all rows to be delivered")
        assert Counter(one.bodies + other.bodies) == Counter(words(1500))


# -- lost workers -----------------------------------------------------------------------------------------


async def test_a_lost_workers_job_runs_elsewhere(store_url: str) -> None:
    async with (
        working(store_url, identity=dead_process()) as lost,
        working(store_url, record=[WorkerLost, JobTakenOver]) as worker,
    ):
        [job_id] = await lost.insert(["a"])
        lost.consume()
        await lost.publish_all()
        assert (await lost.claim(job_id))[0].verdict is Verdict.GRANT
        worker.consume()

        async with worker.relaying():
            await worker.has(1)

        assert len(worker.recorder.of(WorkerLost)) == 1
        assert worker.recorder.of(JobTakenOver) == [JobTakenOver(job_id, 1)]
        claim, _ = await worker.claim(job_id)
        assert (claim.verdict, claim.crashes) == (Verdict.GRANT, 1)


async def test_what_waited_in_a_lost_workers_memory_is_published_elsewhere(store_url: str) -> None:
    async with working(store_url, identity=dead_process()) as lost, working(store_url) as worker:
        await lost.insert(words(6))
        lost.consume(prefetch=3, ack=False)
        await lost.publish_all()
        worker.consume()
        assert await worker.relay.publish_unpublished() == 0

        async with worker.relaying():
            await worker.has(6)

        assert worker.bodies == words(6)


async def test_a_worker_whose_lease_is_over_is_lost_and_one_that_renews_it_is_not(store_url: str) -> None:
    short = timedelta(seconds=1)
    async with (
        working(store_url, lease=short) as silent,
        working(store_url, lease=short) as alive,
        working(store_url, leases=Leases(worker=short), record=[WorkerLost]) as worker,
    ):
        jobs = {}
        for owner in (silent, alive):
            owner.consume()
            [jobs[owner]] = await owner.insert(["a"])
            await owner.publish_all()
            assert (await owner.claim(jobs[owner]))[0].verdict is Verdict.GRANT

        async def has_recovered() -> bool:
            await alive.store.heartbeat({})
            return await worker.relay.recover_lost() > 0

        await eventually(has_recovered, why="the silent worker's lease to be over")

        assert len(worker.recorder.of(WorkerLost)) == 1
        states = {owner: await worker.store.get(job_id) for owner, job_id in jobs.items()}
        assert [job.state for job in states.values() if job] == [JobState.QUEUED, JobState.RUNNING]


async def test_a_job_that_takes_its_workers_with_it_is_failed_in_the_end(store_url: str) -> None:
    leases = Leases(max_crashes=2)
    async with working(store_url, leases=leases, record=[JobFailed]) as worker:
        [job_id] = await worker.insert(["a"])
        for _ in range(2):
            async with working(store_url, identity=dead_process(), leases=leases) as lost:
                assert (await lost.claim(job_id))[0].verdict is Verdict.GRANT
            assert await worker.relay.recover_lost() == 1

        job = await worker.store.get(job_id)
        assert job is not None
        assert (job.state, job.crashes) == (JobState.FAILED, 2)
        assert [event.job_id for event in worker.recorder.of(JobFailed)] == [job_id]


# -- retention --------------------------------------------------------------------------------------------


async def test_final_rows_are_deleted_in_batches_after_their_time(store_url: str) -> None:
    retention = Retention(succeeded=timedelta(), failed=timedelta(days=1))
    async with working(store_url, record=[JobsPruned], retention=retention) as worker:
        jobs = await worker.insert(words(705))
        await asyncio.gather(*(worker.end(job_id, Succeeded()) for job_id in jobs[:700]))
        await asyncio.gather(*(worker.end(job_id, Failed(BOOM)) for job_id in jobs[700:703]))

        assert [await worker.relay.prune() for _ in range(3)] == [500, 200, 0]

        counts = await worker.store.count_by_state()
        assert {state: count for state, count in counts.items() if count} == {
            JobState.FAILED: 3,
            JobState.QUEUED: 2,
        }
        assert worker.recorder.seen == [JobsPruned(500), JobsPruned(200)]


# -- the loop ---------------------------------------------------------------------------------------------


class RefusingStore(SqlStore):
    """Refuses one kind of look, until it is told otherwise."""

    error: Exception | None = ValueError("of one kind")

    async def recover(self, limit: int) -> Recovery:
        if self.error is not None:
            raise self.error
        return await super().recover(limit)


async def test_a_look_that_fails_is_told_once_and_the_others_go_on(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jq_actors.relay.relay.RECOVER_EVERY", timedelta(milliseconds=20))
    interval = timedelta(milliseconds=20)
    async with working(
        sqlite_url, store_class=RefusingStore, record=[TaskFailed, Redispatched], interval=interval
    ) as worker:
        assert isinstance(worker.store, RefusingStore)
        worker.consume()
        async with worker.relaying():
            for number in range(5):
                await worker.insert(["a"])
                await worker.has(number + 1)
            worker.store.error = StoreUnavailableError("The database is away.")  # of which the store tells itself
            await worker.insert(["b"])
            await worker.has(6)
            worker.store.error = RuntimeError("of another kind")
            await worker.recorder.wait_for(TaskFailed, count=2)
            worker.store.error = None
            await worker.insert(["c"])
            await worker.has(7)

    told = [(event.task, event.error) for event in worker.recorder.of(TaskFailed)]
    assert told == [
        ("relay (recover)", "ValueError: of one kind"),
        ("relay (recover)", "RuntimeError: of another kind"),
    ]
    assert "in recover" in worker.recorder.of(TaskFailed)[1].traceback


class SlowStore(SqlStore):
    """Lets a test come in between, when rows were taken."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self.taken = asyncio.Event()

    async def take_unpublished(
        self, room: Mapping[str, int] | None, limit: int, publish_lease: timedelta
    ) -> list[Dispatch]:
        dispatches = await super().take_unpublished(room, limit, publish_lease)
        self.taken.set()
        await asyncio.sleep(0)
        return dispatches


async def test_a_relay_that_is_stopped_finishes_what_it_has_in_hand(sqlite_url: str) -> None:
    async with working(sqlite_url, store_class=SlowStore) as worker:
        assert isinstance(worker.store, SlowStore)
        worker.consume()
        await worker.insert(["a"])

        async with worker.relaying():
            await worker.store.taken.wait()

        await worker.has(1)
        assert await worker.relay.publish_unpublished() == 0
        assert await worker.store.count_published(QUEUE, worker.store.now(), 10) == 1
