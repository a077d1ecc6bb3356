"""The order guard: whose turn it is in a group is for the rows to say, whatever the deliveries say."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from jq_actors.errors import StoreError
from jq_actors.job import JobState
from jq_actors.outcome import Failure, Interrupted, Retrying
from jq_actors.protocol import Verdict
from jq_actors.store.records import Claim
from jq_actors.turns import LONGEST_WAIT
from tests.support.waiting import eventually

from .grouped import numbered, sent, with_rule
from .stores import World, clock, new_job, queued, request_of, verdicts
from .turns import asks, ends, runs, started

FAILURE = Failure(ValueError("no"), "ValueError: no")
SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)


@pytest.mark.parametrize("hint", [True, False])
async def test_second_job_waits_for_the_first_one(db: World, hint: bool) -> None:
    store = await db.worker()
    first, second = await sent(store, 2)
    request = asks(first, hint=hint)
    granted = await store.claim(request)
    assert (granted.verdict, granted.attempt, granted.group, granted.instead) == (Verdict.GRANT, 1, "g", None)
    held = await store.claim(asks(second, hint=hint))
    assert (held.verdict, held.group, held.reason) == (Verdict.HOLD, "g", f"behind job {first.id}, which runs")
    await ends(store, request, granted)
    assert (await store.claim(asks(second, hint=hint))).verdict is Verdict.GRANT


async def test_job_of_a_wrong_hint_is_judged_by_its_row(db: World) -> None:
    store = await db.worker()
    [grouped], [alone] = await sent(store), await queued(store)
    answers = [await store.claim(asks(replace(job, group="another"))) for job in (grouped, alone)]
    assert [(answer.verdict, answer.group) for answer in answers] == [(Verdict.GRANT, "g"), (Verdict.GRANT, None)]


async def test_delivery_starts_the_job_whose_turn_it_is(db: World) -> None:
    store = await db.worker()
    jobs = await sent(store, 3, body=b'{"args":["first"]}')
    request = asks(jobs[2])
    answer = await store.claim(request)
    assert answer.instead is not None
    assert (answer.instead.job_id, answer.instead.dispatch) == (jobs[0].id, 1)
    assert answer.instead.body == b'{"args":["first"]}'
    await ends(store, request, answer)
    assert [await runs(store, jobs[2]) for _ in range(2)] == [jobs[1].id, jobs[2].id]
    assert (await store.claim(asks(jobs[0]))).verdict is Verdict.DROP_FINAL


async def test_two_deliveries_of_one_group_in_one_batch(db: World) -> None:
    store = await db.worker()
    jobs = await sent(store, 3)
    answers = await asyncio.gather(*(store.claim(asks(job)) for job in jobs))
    assert verdicts(answers) == [Verdict.GRANT, Verdict.HOLD, Verdict.HOLD]


async def test_concurrency_lets_so_many_run_and_each_delivery_its_own(db: World) -> None:
    store = await db.worker()
    with_rule(store, concurrency=3)
    jobs = await sent(store, 6)
    requests = [asks(job) for job in (jobs[2], jobs[5], jobs[1], jobs[4])]
    answers = [await store.claim(request) for request in requests]
    ran = [started(request, answer) for request, answer in zip(requests[:3], answers[:3], strict=True)]
    assert ran == [jobs[2].id, jobs[0].id, jobs[1].id]
    assert answers[3].verdict is Verdict.HOLD


async def test_same_job_twice_in_hand_runs_once(db: World) -> None:
    store = await db.worker()
    with_rule(store, concurrency=2)
    [job, other] = await sent(store, 2)
    requests = [asks(job), asks(job)]
    answers = await asyncio.gather(*(store.claim(request) for request in requests))
    assert sorted(verdicts(answers)) == [Verdict.GRANT, Verdict.HOLD]
    assert next(a for a in answers if a.verdict is Verdict.HOLD).own_token in {r.run_token for r in requests}
    assert (await store.claim(asks(other))).verdict is Verdict.GRANT


async def test_parked_behind_a_job_of_another_queue_and_released_when_it_ends(db: World) -> None:
    store = await db.worker()
    [first], [second] = await sent(store, queue="slow"), await sent(store)
    answer = await store.claim(asks(second))
    assert (answer.verdict, answer.group) == (Verdict.PARK, "g")
    assert answer.reason == f"behind job {first.id}, which waits in queue slow"
    row = await db.the_row(second.id)
    assert (row.state, row.publish_at, row.published_at) == (JobState.WAITING, None, None)
    assert row.parked_at is not None
    assert await runs(store, first) == first.id
    row = await db.the_row(second.id)
    assert (row.state, row.dispatch, row.parked_at) == (JobState.QUEUED, 2, None)
    assert (await store.claim(asks(second))).verdict is Verdict.DROP_STALE
    assert await runs(store, second, dispatch=2) == second.id


async def test_waiting_job_starts_by_a_delivery_of_another_one(db: World) -> None:
    store = await db.worker()
    [first], later = await sent(store, queue="slow"), await sent(store, 2)
    assert (await store.claim(asks(later[0]))).verdict is Verdict.PARK
    await db.change(first.id, state="cancelled", final_state="cancelled", finished_at=clock.wall())
    assert await runs(store, later[1]) == later[0].id
    assert (await db.the_row(later[0].id)).parked_at is None


async def test_job_without_a_payload_is_set_aside_and_the_group_says_so(db: World) -> None:
    store = await db.worker()
    first, second = await sent(store, 2)
    await db.execute(sa.delete(db.tables.payloads).where(db.tables.payloads.c.job_id == first.id))
    answer = await store.claim(asks(second))
    assert (answer.verdict, answer.reason) == (Verdict.LEAVE, f"blocked by job {first.id}, which no worker can run")
    row = await db.the_row(first.id)
    assert (row.state, row.reason) == (JobState.UNHANDLED, "its payload is gone")
    parked = await store.claim(asks(second, can_leave=False))
    assert (parked.verdict, (await db.the_row(second.id)).state) == (Verdict.PARK, JobState.WAITING)


async def test_paused_group_starts_nothing(db: World) -> None:
    store = await db.worker()
    [job] = await sent(store)
    await store.pause_group("g", "paused by ops")
    answer = await store.claim(asks(job))
    assert (answer.verdict, answer.reason) == (Verdict.LEAVE, "paused by ops")


# -- retries


async def test_short_retry_keeps_its_turn_and_its_delivery(db: World) -> None:
    store = await db.worker()
    first, second = await sent(store, 2)
    request = asks(first)
    before = store.now()
    await ends(store, request, await store.claim(request), Retrying(FAILURE, 5 * SECOND), keeps_turn=True)
    row = await db.the_row(first.id)
    assert row.wake_at - row.due_at == timedelta(seconds=30)
    waits = [await store.claim(asks(job)) for job in (first, second)]
    assert verdicts(waits) == [Verdict.HOLD, Verdict.HOLD]
    assert waits[0].look_again <= row.due_at - before
    assert f"blocked by job {first.id}, retrying until" in waits[1].reason
    await db.change(first.id, due_at=clock.wall())
    assert await runs(store, second) == first.id
    assert (await db.the_row(first.id)).wake_at is None
    assert await runs(store, second) == second.id


async def test_retry_in_the_memory_of_a_worker_that_leaves_is_the_relays_when_it_is_due(db: World) -> None:
    leaving, other = await db.worker(), await db.worker()
    [job] = await sent(leaving)
    await leaving.mark_published([(job.id, 1)], lane_owner=True)
    request = asks(job)
    await ends(leaving, request, await leaving.claim(request), Retrying(FAILURE, timedelta()), keeps_turn=True)
    assert await other.take_due(10, HOUR) == []
    await leaving.leave()
    assert [due.job_id for due in await other.take_due(10, HOUR)] == [job.id]


async def test_long_retry_sends_the_others_away(db: World) -> None:
    store = await db.worker()
    first, second = await sent(store, 2)
    assert await runs(store, first, Retrying(FAILURE, LONGEST_WAIT + HOUR)) == first.id
    assert (await db.the_row(first.id)).wake_at == (await db.the_row(first.id)).due_at
    answer = await store.claim(asks(second))
    assert (answer.verdict, answer.group) == (Verdict.LEAVE, "g")
    await db.change(first.id, due_at=clock.wall() - SECOND, wake_at=clock.wall() - SECOND)
    [due] = await store.take_due(10, HOUR)
    assert (due.job_id, due.dispatch) == (first.id, 2)
    assert await runs(store, second) == first.id  # in its old place


async def test_those_behind_pass_a_retry_that_may_be_overtaken(db: World) -> None:
    store = await db.worker()
    with_rule(store, overtake=True)
    first, second = await sent(store, 2)
    assert await runs(store, first, Retrying(FAILURE, HOUR)) == first.id
    assert await runs(store, second) == second.id


async def test_interrupted_job_comes_first_again(db: World) -> None:
    store = await db.worker()
    first, second = await sent(store, 2)
    assert await runs(store, first, Interrupted()) == first.id
    assert await runs(store, second) == first.id


# -- places


async def test_delayed_job_takes_its_place_when_it_is_due(db: World) -> None:
    store = await db.worker()
    late, [first] = await sent(store, 2, due_in=HOUR), await sent(store)
    assert await runs(store, first) == first.id
    [second] = await sent(store)
    for n, job in enumerate(late):
        await db.change(job.id, due_at=clock.wall() - n * SECOND, wake_at=clock.wall() - n * SECOND)
    due = await store.take_due(10, HOUR)
    assert [dispatch.job_id for dispatch in due] == [late[1].id, late[0].id]
    [third] = await sent(store)
    assert [await runs(store, third) for _ in range(4)] == [second.id, late[1].id, late[0].id, third.id]


async def test_numbered_jobs_run_in_the_order_of_their_numbers(db: World) -> None:
    store = await db.worker()
    three, one = await numbered(store, 3, 1)
    assert await runs(store, three) == one.id
    answer = await store.claim(asks(three))
    assert (answer.verdict, answer.reason) == (Verdict.PARK, "position 2 has not been sent")
    [two] = await numbered(store, 2)
    assert await runs(store, two) == two.id
    assert (await db.the_row(three.id)).state == JobState.QUEUED
    assert await runs(store, three, dispatch=2) == three.id


async def test_scheduled_number_holds_up_those_behind_it(db: World) -> None:
    store = await db.worker()
    first = replace(new_job(group="g", due_in=30 * SECOND), position=1)
    await store.insert([first], publish_lease=None)
    [second] = await numbered(store, 2)
    answer = await store.claim(asks(second))
    assert (answer.verdict, answer.look_again > timedelta(seconds=20)) == (Verdict.HOLD, True)
    await db.change(first.id, due_at=clock.wall())
    assert await runs(store, second) == first.id
    assert await store.take_due(10, HOUR) == []


# -- adopted, lost, found again


async def test_adopted_job_of_a_group_waits_for_its_turn(db: World) -> None:
    store = await db.worker()
    [first] = await sent(store)
    foreign = new_job(group="g")
    request = request_of(foreign, promised=False)
    answer = await store.claim(request)
    assert started(request, answer) == first.id
    row = await db.the_row(foreign.id)
    assert (row.state, row.publish_at, row.attempt) == (JobState.QUEUED, None, 0)
    await ends(store, request, answer)
    assert await runs(store, foreign) == foreign.id


async def test_adopted_job_with_a_number_that_is_used_has_no_row(db: World) -> None:
    store = await db.worker()
    [first] = await numbered(store, 1)
    with pytest.raises(StoreError, match="Position 1 of group 'g' is used already"):
        await store.claim(request_of(replace(new_job(group="g"), position=1), promised=False))
    assert await runs(store, first) == first.id


async def test_running_job_of_a_lost_worker_is_taken_over_without_a_turn(db: World) -> None:
    store = await db.worker()
    first, second = await sent(store, 2)
    assert (await store.claim(asks(first))).verdict is Verdict.GRANT
    await db.change(first.id, worker_id="gone")
    taken = await store.claim(asks(first))
    assert (taken.verdict, taken.crashes, taken.group) == (Verdict.GRANT, 1, "g")
    assert (await store.claim(asks(second))).verdict is Verdict.HOLD


@pytest.mark.parametrize("instead", [True, False])
async def test_answer_that_was_lost_is_given_again(db: World, instead: bool) -> None:
    """Else a job would run for ever that nobody runs."""
    store = await db.worker()
    jobs = await sent(store, 2)
    request = asks(jobs[instead])

    async def written(*, again: bool) -> Claim:
        write = store._claims.write
        return (await store._db.write(lambda c: write(c, [request], store.now(), again=again))).answers[
            request.run_token
        ]

    first = await written(again=False)
    if instead:  # and the delivery's own job is cancelled meanwhile: what was granted runs all the same
        await db.change(jobs[1].id, state="cancelled", final_state="cancelled", finished_at=clock.wall())
    second = await written(again=True)
    assert second == first
    assert started(request, second) == jobs[0].id


async def test_granted_job_whose_caller_is_gone_is_given_back(db: World) -> None:
    store = await db.worker()
    jobs = await sent(store, 2)
    caller = asyncio.ensure_future(store.claim(asks(jobs[1])))
    await asyncio.sleep(0)
    caller.cancel()

    async def given_back() -> bool:
        row = await db.the_row(jobs[0].id)
        return row.state == JobState.QUEUED and row.run_token is not None

    await eventually(given_back, 20, "the job to be given back")
    assert (await db.the_row(jobs[0].id)).publish_at is not None
