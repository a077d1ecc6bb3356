"""Lost workers, on every database: their jobs are given back once, counted, and never written to by the dead."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from jq_actors.errors import RuntimeStateError
from jq_actors.events import JobFailed, JobTakenOver
from jq_actors.model.claim_rules import Verdict
from jq_actors.model.job import JobState
from jq_actors.model.outcome import Succeeded
from jq_actors.store.claims.claim_followups import ClaimResults
from jq_actors.store.records import Leases, NewJob, Recovery
from jq_actors.store.sql import SqlStore
from tests.support.clock import FakeClock
from tests.support.waiting import eventually

from .stores import (
    LEASE,
    LEASES,
    ME,
    World,
    another_me,
    clock,
    got,
    granted,
    new_job,
    queued,
    request_of,
    settled,
    worker_in_another_process,
    world_on,
)

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


async def lapse(db: World, worker_id: str) -> None:
    """Let a worker's lease be over."""
    workers = db.tables.workers
    await db.execute(sa.update(workers).where(workers.c.id == worker_id).values(lease_until=clock.wall() - HOUR))


async def worker_with(db: World, worker_id: str, count: int) -> tuple[SqlStore, list[NewJob], list[int]]:
    """A worker that runs ``count`` jobs."""
    store = await db.worker(identity=replace(ME, id=worker_id))
    jobs = await queued(store, count)
    return store, jobs, await asyncio.gather(*(granted(store, job) for job in jobs))


async def test_living_workers_keep_their_jobs(db: World) -> None:
    store, [job], _ = await worker_with(db, "w", 1)
    assert await store.recover(10) == Recovery()
    assert (await got(store, job)).state is JobState.RUNNING


async def test_jobs_of_a_lost_worker_are_queued_unpublished_as_the_same_dispatch(db: World) -> None:
    lost, [job], [token] = await worker_with(db, "lost", 1)
    relay = await db.worker()
    events = db.record(JobTakenOver)
    await lapse(db, "lost")

    assert await relay.recover(10) == Recovery(queued=(job.id,), workers=("lost",))

    found = await got(relay, job)
    assert (found.state, found.dispatch, found.attempt, found.crashes) == (JobState.QUEUED, 1, 1, 1)
    assert [(run.number, run.outcome, run.worker_id) for run in found.attempts] == [(1, "lost", "lost")]
    assert events.of(JobTakenOver) == [JobTakenOver(job.id, 1)]
    assert [d.job_id for d in await relay.take_unpublished(None, 10, MINUTE)] == [job.id]
    assert await relay.recover(10) == Recovery()
    # The process was only stopped: what it writes now comes to nothing, before and after the second attempt.
    assert not await settled(lost, job, token, Succeeded("old"))
    second = await granted(relay, job)
    assert not await settled(lost, job, token, Succeeded("old"))
    assert await settled(relay, job, second, Succeeded("new"))
    found = await got(relay, job)
    assert (found.result, [run.outcome for run in found.attempts]) == ("new", ["lost", "succeeded"])


async def test_job_that_loses_too_many_workers_fails(db: World) -> None:
    _, [job, innocent], _ = await worker_with(db, "lost", 2)
    relay = await db.worker(leases=replace(LEASES, max_crashes=3))
    failed = db.record(JobFailed)
    await db.change(job.id, crashes=2, attempt=3)
    await lapse(db, "lost")

    assert await relay.recover(10) == Recovery(queued=(innocent.id,), failed=(job.id,), workers=("lost",))

    found = await got(relay, job)
    reason = f"worker lost ({ME.host.partition('/')[0]}:{ME.pid}) 3 times"
    assert (found.state, found.crashes, found.reason, found.error) == (JobState.FAILED, 3, reason, reason)
    assert found.finished_at is not None
    assert [event.job_id for event in failed.of(JobFailed)] == [job.id]


async def test_worker_whose_process_is_gone_is_lost_before_its_lease_is_over(db: World) -> None:
    async with worker_in_another_process("victim") as identity:
        victim, relay = await db.worker(identity=identity), await db.worker()
        [job] = await queued(victim)
        await granted(victim, job)
        assert await relay.recover(10) == Recovery()
    assert await relay.recover(10) == Recovery(queued=(job.id,), workers=("victim",))


async def test_recovery_goes_on_where_its_limit_stopped_it(db: World) -> None:
    _, jobs, _ = await worker_with(db, "lost", 25)
    relay = await db.worker()
    await lapse(db, "lost")
    looks = [await relay.recover(10) for _ in range(4)]
    assert [len(look.queued) for look in looks] == [10, 10, 5, 0]
    assert [look.workers for look in looks] == [(), (), ("lost",), ()]
    assert {job_id for look in looks for job_id in look.queued} == {job.id for job in jobs}


async def test_others_get_the_time_to_renew_their_lease_from_who_has_just_started(db: World) -> None:
    _, [job], _ = await worker_with(db, "late", 1)
    await lapse(db, "late")
    grace = timedelta(seconds=1)
    relay = await db.worker(leases=replace(LEASES, worker=grace))
    assert await relay.recover(10) == Recovery()
    claim = await relay.claim(request_of(job))
    assert claim.verdict is Verdict.HOLD
    assert claim.look_again <= grace

    async def recovered() -> Recovery | None:
        recovery = await relay.recover(10)
        return recovery if recovery.workers else None

    assert await eventually(recovered, 10, "the grace to be over") == Recovery(queued=(job.id,), workers=("late",))


async def test_worker_that_could_not_renew_its_lease_renews_it_before_all_else(sqlite_url: str) -> None:
    time = FakeClock()
    async with world_on(sqlite_url) as world:
        first, second = (world.store(clock=time, leases=Leases(worker=LEASE)) for _ in range(2))
        for store in (first, second):
            await store.open()
            await store.register(another_me(), ["mail"], LEASE)
        time.jump(2 * LEASE)  # the grace of who has just started is over
        await first.heartbeat({})
        await second.heartbeat({})
        time.jump(2 * LEASE)
        [of_first, of_second] = jobs = await queued(first, 2)
        await first.heartbeat({"mail": 2})
        await granted(first, of_first)
        await second.heartbeat({})
        await granted(second, of_second)

        # An outage of the database: nobody renews. The first that is back takes nothing, not even its own.
        time.jump(2 * LEASE)
        assert await first.recover(10) == Recovery()
        assert [(await first.claim(request_of(job))).verdict for job in jobs] == [Verdict.HOLD] * 2
        assert await first.held_deliveries("mail") == 2
        # The other one is back in time.
        time.jump(LEASE / 2)
        await second.heartbeat({})
        await first.heartbeat({})
        time.jump(LEASE / 2)
        assert await first.recover(10) == Recovery()
        assert await second.recover(10) == Recovery()
        # And if it had not come back, it would be lost.
        for _ in range(3):
            await first.heartbeat({})
            time.jump(LEASE / 3)
        assert (await first.recover(10)).queued == (of_second.id,)


async def test_claim_after_a_stop_is_made_under_a_new_lease(sqlite_url: str) -> None:
    time = FakeClock()
    async with world_on(sqlite_url) as world:
        stopped = world.store(clock=time)
        await stopped.open()
        await stopped.register(another_me(), ["mail"], LEASE)
        [job] = await queued(stopped)
        time.jump(10 * LEASE)
        await granted(stopped, job)
        [row] = await world.execute(sa.select(world.tables.workers.c.lease_until))
        assert row.lease_until == time.wall() + LEASE


async def test_what_lay_in_a_lost_workers_memory_is_unpublished(db: World) -> None:
    lost, relay = await db.worker(identity=replace(ME, id="lost")), await db.worker()
    [in_memory, at_broker] = await queued(lost, 2)
    await lost.mark_published([(in_memory.id, 1)], lane_owner=True)
    await lost.mark_published([(at_broker.id, 1)])
    await lapse(db, "lost")
    assert await relay.recover(10) == Recovery(workers=("lost",))
    assert [d.job_id for d in await relay.take_unpublished(None, 10, MINUTE)] == [in_memory.id]


@pytest.mark.parametrize("finders", ["relays", "relays and claims"])
async def test_racing_finders_count_each_loss_once(db: World, finders: str) -> None:
    relays = [await db.worker() for _ in range(3)]
    for round_ in range(8):
        worker_id = f"lost-{round_}"
        _, jobs, _ = await worker_with(db, worker_id, 20)
        await lapse(db, worker_id)
        looks = [asyncio.ensure_future(relay.recover(1000)) for relay in relays]
        claims = [relays[0].claim(request_of(job)) for job in jobs] if finders != "relays" else []
        await asyncio.gather(*claims)
        given = [job_id for look in await asyncio.gather(*looks) for job_id in look.queued]
        assert len(given) == len(set(given))
        for found in await asyncio.gather(*(got(relays[0], job) for job in jobs)):
            assert found.crashes == 1
            assert [run.outcome for run in found.attempts] == ["lost"]
        if finders == "relays":
            assert set(given) == {job.id for job in jobs}


async def test_claim_that_is_under_way_when_its_worker_is_taken_for_lost_is_recovered(
    db: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the row would run for a worker that nobody watches any more."""
    slow, relay = await db.worker(identity=replace(ME, id="slow")), await db.worker()
    [job] = await queued(slow)
    await lapse(db, "slow")
    claimed, commit = asyncio.Event(), asyncio.Event()
    write = slow._claims.write

    async def nothing(*_arguments: Any) -> ClaimResults:
        """Leave all to a transaction."""
        return ClaimResults()

    monkeypatch.setattr(slow._claims, "try_fast_path", nothing)

    async def held_before_its_commit(*arguments: Any, **options: Any) -> Any:
        answer = await write(*arguments, **options)
        claimed.set()
        await commit.wait()
        return answer

    monkeypatch.setattr(slow._claims, "write", held_before_its_commit)
    claim = asyncio.ensure_future(slow.claim(request_of(job)))
    await claimed.wait()
    recovering = asyncio.ensure_future(relay.recover(10))
    # PostgreSQL passes over a worker that claims, SQLite waits for it.
    await asyncio.wait([recovering], timeout=0.5)
    commit.set()
    assert (await claim).verdict is Verdict.GRANT
    await recovering
    await relay.recover(10)
    found = await got(relay, job)
    assert (found.state, found.crashes) == (JobState.QUEUED, 1)


async def test_heartbeat_keeps_a_worker_and_makes_its_row_again(db: World) -> None:
    store, relay = await db.worker(identity=replace(ME, id="slow")), await db.worker()
    await lapse(db, "slow")
    await store.heartbeat({"mail": 3})
    assert await relay.recover(10) == Recovery()
    await lapse(db, "slow")
    assert await relay.recover(10) == Recovery(workers=("slow",))
    await store.heartbeat({"mail": 4})
    assert await relay.recover(10) == Recovery()
    assert await relay.held_deliveries("mail") == 4


async def test_held_deliveries_are_those_of_living_workers(db: World) -> None:
    first, second = await db.worker(identity=replace(ME, id="first")), await db.worker()
    await first.heartbeat({"mail": 3, "heavy": 1})
    await second.heartbeat({"mail": 4})
    assert [await first.held_deliveries(queue) for queue in ("mail", "heavy", "none")] == [7, 1, 0]
    await lapse(db, "first")
    assert await second.held_deliveries("mail") == 4
    await second.leave()
    assert await first.held_deliveries("mail") == 0


async def test_leaving_worker_is_gone_and_its_jobs_are_interrupted(db: World) -> None:
    leaving, [job], [token] = await worker_with(db, "leaving", 1)
    other = await db.worker()
    await leaving.leave()
    found = await got(other, job)
    assert (found.state, found.attempt, found.crashes) == (JobState.QUEUED, 0, 0)
    assert [run.outcome for run in found.attempts] == ["interrupted"]
    assert not await settled(leaving, job, token, Succeeded())
    assert [d.job_id for d in await other.take_unpublished(None, 10, MINUTE)] == [job.id]
    assert "leaving" not in {row.id for row in await db.execute(sa.select(db.tables.workers.c.id))}
    with pytest.raises(RuntimeStateError):
        await leaving.claim(request_of(new_job()))
    assert (await other.claim(request_of(job))).verdict is Verdict.GRANT


async def test_worker_row_says_who_it_is(db: World) -> None:
    await db.worker(identity=replace(ME, id="me", name="worker_1"))
    [row] = await db.execute(sa.select(db.tables.workers))
    assert (row.id, row.name, row.host, row.pid) == ("me", "worker_1", ME.host, ME.pid)
    assert row.process_started == ME.process_started
    assert (row.queues, row.held) == (["mail"], {})
