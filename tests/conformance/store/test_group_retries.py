"""What failed or was cancelled runs again, as if it were new, in its old place, on every database."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import sqlalchemy as sa

from jq_actors.model.claim_rules import Verdict
from jq_actors.model.job import JobId, JobState
from jq_actors.model.outcome import Cancelled, Failed, Failure
from jq_actors.store.records import JobFilter, Retention

from .grouped import HOUR, MINUTE, ended, ids_of, numbered, numbers, order_of, sent, states, the_group
from .stores import LEASE, World, clock, got, granted, job_ids, new_job, queued, settled
from .turns import asks, ends, runs

FAILURE = Failure(None, "no")
FAILED = JobFilter(states=frozenset({JobState.FAILED}))


async def test_retried_jobs_start_anew(led: World) -> None:
    store = await led.worker()
    first, second, third = await queued(store, 3)
    token = await granted(store, first)
    assert await settled(store, first, token, Failed(FAILURE))
    assert await settled(store, second, await granted(store, second), Cancelled("ops"))
    await led.change(first.id, crashes=2, attempt=4)
    assert await store.retry(JobFilter(), [second.id, first.id, third.id], 10) == ids_of([first, second])
    for job in (first, second):
        found, row = await got(store, job), await led.the_row(job.id)
        assert (found.state, found.dispatch, found.attempt, found.crashes) == (JobState.QUEUED, 2, 0, 0)
        assert (found.finished_at, found.reason, row.final_state) == (None, None, None)
        assert [run.number for run in found.attempts] == [1]
    assert numbers(await store.take_unpublished(None, 10, LEASE)) == [(first.id, 2), (second.id, 2)]
    # What the run before might still write comes to nothing.
    assert not await settled(store, first, token, Cancelled("late"))
    await granted(store, first, dispatch=2)
    assert [run.number for run in (await got(store, first)).attempts] == [1]


async def test_a_group_replays_in_its_first_order(led: World) -> None:
    store = await led.worker()
    jobs = await sent(store, 5)
    for job, outcome in zip(jobs[:3], (Failed(FAILURE), None, Failed(FAILURE)), strict=True):
        await runs(store, job, outcome)
    assert await states(led, jobs[3:]) == ["queued", "waiting"]
    assert await store.retry(replace(FAILED, group="g"), [], 10) == ids_of([jobs[0], jobs[2]])
    in_order = [jobs[0], *jobs[2:]]
    assert await order_of(store) == ids_of(in_order)
    # They come before what has not started yet.
    assert await states(led, in_order) == ["queued", "waiting", "waiting", "waiting"]
    assert (await store.claim(asks(jobs[3], dispatch=2))).verdict is Verdict.DROP_STALE
    assert ids_of(await store.take_unpublished(None, 10, LEASE)) == [jobs[0].id]
    found = await got(store, jobs[0])
    assert (found.attempt, found.crashes, found.finished_at, found.reason) == (0, 0, None, None)
    for job in in_order:
        await runs(store, job)


async def test_retried_job_waits_for_what_runs(led: World) -> None:
    store = await led.worker()
    first, second, third = await sent(store, 3)
    await runs(store, first, Failed(FAILURE))
    request = asks(second, dispatch=2)
    answer = await store.claim(request)
    assert await store.retry(FAILED, [], 10) == [first.id]
    found = await got(store, first)
    assert (found.state, found.attempt, found.finished_at) == (JobState.WAITING, 0, None)
    await ends(store, request, answer)
    for job in (first, third):
        await runs(store, job)


async def test_retried_job_of_a_paused_group_waits(led: World) -> None:
    store = await led.worker()
    first, second = await sent(store, 2)
    await runs(store, first, Failed(FAILURE))
    await store.pause_group("g", "by ops")
    assert await store.retry(JobFilter(), [first.id], 1) == [first.id]
    assert await states(led, [first, second]) == ["waiting"] * 2
    assert await store.resume_group("g") == 1
    assert await states(led, [first, second]) == ["queued", "waiting"]


async def test_the_oldest_are_retried_first_and_only_those_wanted(led: World) -> None:
    store = await led.worker()
    jobs = [new_job(job_id, actor="a" if n % 2 else "b", tags=("t",)) for n, job_id in enumerate(job_ids(8))]
    await store.insert(jobs, publish_lease=HOUR)
    await ended(led, *jobs[:6], state="failed")
    await ended(led, jobs[7], state="cancelled")
    where = replace(FAILED, actor="a")
    assert await store.retry(where, [], 2) == ids_of([jobs[1], jobs[3]])
    assert await store.retry(replace(where, tags=("u",)), [], 9) == []
    assert await store.retry(replace(where, tags=("t",)), [], 9) == [jobs[5].id]
    assert await store.retry(JobFilter(states=frozenset({JobState.QUEUED})), [], 9) == []
    assert await store.retry(JobFilter(), [], 9) == ids_of([jobs[0], jobs[2], jobs[4], jobs[7]])
    assert await store.retry(JobFilter(), [JobId("no uuid"), job_ids(1)[0]], 9) == []


async def test_a_retried_number_runs_first_whatever_was_pruned_meanwhile(led: World) -> None:
    store = await led.worker()
    first, second, third, fourth = await numbered(store, 1, 2, 3, 4)
    for job in (first, second, third):
        await runs(store, job, Failed(FAILURE))
    await led.execute(sa.delete(led.tables.jobs).where(led.tables.jobs.c.id.in_([second.id, third.id])))
    assert await store.retry(JobFilter(), [first.id], 1) == [first.id]
    assert await order_of(store) == ids_of([first, fourth])
    assert await states(led, [first, fourth]) == ["queued", "waiting"]
    assert (await the_group(store)).next_position == 1
    await runs(store, first, Failed(FAILURE))
    assert (await the_group(store)).state == "queued"
    await runs(store, fourth)


async def test_what_was_cancelled_before_it_was_due_has_the_place_of_its_sending(led: World) -> None:
    store = await led.worker()
    [late] = await sent(store, 1, due_in=HOUR)
    await store.cancel_group("g", "not now")
    [second] = await sent(store, 1)
    assert await store.retry(JobFilter(), [late.id], 1) == [late.id]
    assert await order_of(store) == ids_of([late, second])
    assert await states(led, [late, second]) == ["queued", "waiting"]
    assert (await got(store, late)).due_at <= clock.wall() + MINUTE


async def test_retried_jobs_are_not_pruned(led: World) -> None:
    store = await led.worker()
    [job] = await sent(store, 1)
    await runs(store, job, Failed(FAILURE))
    await store.retry(JobFilter(), [job.id], 1)
    assert await store.prune(Retention(failed=timedelta()), 10) == 0
