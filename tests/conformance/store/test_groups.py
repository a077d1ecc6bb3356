"""Whose turn it is in a group: a job is queued when it has a place, and waits in its row until then."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from jq_actors.errors import StoreError
from jq_actors.model.claim_rules import Verdict
from jq_actors.model.job import JobState
from jq_actors.model.outcome import Interrupted
from jq_actors.model.turn_rules import BEHIND
from jq_actors.store.records import Claim
from tests.support.waiting import eventually

from .grouped import HOUR, ids_of, numbered, numbers, order_of, sent, states, the_group, with_rule
from .locking import group_held, somebody_waits
from .stores import World, clock, job_ids, new_job, request_of, verdicts
from .turns import asks, ends, runs

SECOND = timedelta(seconds=1)


# -- admission


async def test_the_first_job_is_queued_and_those_behind_it_wait(led: World) -> None:
    store = await led.worker()
    jobs = [new_job(job_id, group="g") for job_id in job_ids(3)]
    assert ids_of(await store.insert(jobs, publish_lease=HOUR)) == [jobs[0].id]
    assert ids_of(await store.insert([later := new_job(group="g")], publish_lease=HOUR)) == []
    assert await states(led, [*jobs, later]) == ["queued", "waiting", "waiting", "waiting"]
    row = await led.the_row(jobs[1].id)
    assert (row.reason, row.publish_at, row.published_at) == (BEHIND, None, None)
    assert row.parked_at is not None
    # Nor does a relay bring them to the broker.
    assert await store.take_unpublished(None, 10, HOUR) == []


@pytest.mark.parametrize("concurrency", [2, 3])
async def test_as_many_are_queued_as_may_run_at_once(led: World, concurrency: int) -> None:
    store = await led.worker()
    with_rule(store, concurrency=concurrency)
    jobs = [new_job(job_id, group="g") for job_id in job_ids(5)]
    assert await store.insert(jobs[:1], publish_lease=None) == []
    assert ids_of(await store.insert(jobs[1:], publish_lease=HOUR)) == ids_of(jobs[1:concurrency])
    assert await states(led, jobs) == ["queued"] * concurrency + ["waiting"] * (5 - concurrency)
    assert ids_of(await store.take_unpublished(None, 10, HOUR)) == [jobs[0].id], "a relay publishes it"


async def test_who_shares_a_commit_is_admitted_in_the_order_of_sending(led: World) -> None:
    store = await led.worker()
    with_rule(store, concurrency=2)
    jobs = [new_job(job_id, group=group) for job_id, group in zip(job_ids(12), "abc" * 4, strict=True)]
    answers = await asyncio.gather(*(store.insert([job], publish_lease=HOUR) for job in jobs))
    assert ids_of(dispatch for answer in answers for dispatch in answer) == ids_of(jobs[:6])
    assert [await order_of(store, name) for name in "abc"] == [ids_of(jobs[n::3]) for n in range(3)]


async def test_jobs_of_a_group_are_in_one_order_in_whatever_queues_they_are(led: World) -> None:
    store = await led.worker()
    [first], [second], [third] = await sent(store, queue="slow"), await sent(store), await sent(store, queue="slow")
    assert await states(led, [first, second, third]) == ["queued", "waiting", "waiting"]
    for job in (first, second, third):
        await runs(store, job)


async def test_in_a_paused_group_a_new_job_waits(led: World) -> None:
    store = await led.worker()
    await store.pause_group("g", "by ops")
    jobs = await sent(store, 2)
    assert await states(led, jobs) == ["waiting"] * 2
    assert await store.resume_group("g") == 1
    assert numbers(await store.take_unpublished(None, 10, HOUR)) == [(jobs[0].id, 2)]


async def test_order_of_sending_is_that_of_the_commits(pg: World) -> None:
    """Two senders of a group, one of which takes its time: who commits first comes first."""
    slow, store = await pg.worker(), await pg.worker()
    [first] = await sent(store)
    async with group_held(pg):
        sending = asyncio.ensure_future(sent(slow))
        await somebody_waits(pg)
        [last] = await pg.execute(sa.text(f"SELECT last_value FROM {pg.tables.jobs.name}_seq_seq"))
        assert last.last_value == (await pg.the_row(first.id)).seq, "it draws its number when it has the lock"
    [second] = await sending
    assert await order_of(store) == ids_of([first, second])


# -- claims


async def test_one_job_runs_after_the_other(led: World) -> None:
    store = await led.worker()
    first, second = await sent(store, 2)
    request = asks(first)
    granted_ = await store.claim(request)
    assert (granted_.verdict, granted_.attempt, granted_.group, granted_.instead) == (Verdict.GRANT, 1, "g", None)
    assert (await store.claim(asks(second))).verdict is Verdict.DROP_STALE
    await ends(store, request, granted_)
    assert await states(led, [second]) == ["queued"]
    # A copy of what waited does not run: the one that was published when its turn came does.
    assert (await store.claim(asks(second))).verdict is Verdict.DROP_STALE
    await runs(store, second, dispatch=2)
    assert (await store.claim(asks(first))).verdict is Verdict.DROP_FINAL


async def test_so_many_run_at_once_and_no_more(led: World) -> None:
    store = await led.worker()
    with_rule(store, concurrency=3)
    jobs = await sent(store, 6)
    answers = await asyncio.gather(*(store.claim(asks(job)) for job in jobs))
    assert verdicts(answers) == [Verdict.GRANT] * 3 + [Verdict.DROP_STALE] * 3
    assert await states(led, jobs) == ["running"] * 3 + ["waiting"] * 3


async def test_same_job_twice_in_hand_runs_once(led: World) -> None:
    store = await led.worker()
    [job] = await sent(store)
    requests = [asks(job), asks(job)]
    answers = await asyncio.gather(*(store.claim(request) for request in requests))
    assert sorted(verdicts(answers)) == [Verdict.GRANT, Verdict.HOLD]
    assert next(a for a in answers if a.verdict is Verdict.HOLD).own_token in {r.run_token for r in requests}


async def test_answer_that_was_lost_is_given_again(led: World) -> None:
    """Else a job would run for ever that nobody runs."""
    store = await led.worker()
    [job, _] = await sent(store, 2)
    request = asks(job)

    async def written(*, again: bool) -> Claim:
        write = store._claims.write
        claimed = await store._db.write(lambda c: write(c, [request], store.now(), may_be_committed=again))
        return claimed.answers[request.run_token]

    if led.url.startswith("postgresql"):  # there the grant is a statement of its own
        assert await store.claim(request) == await written(again=True)
    else:
        assert await written(again=False) == await written(again=True)


async def test_granted_job_whose_caller_is_gone_is_given_back(led: World) -> None:
    store = await led.worker()
    [job, _] = await sent(store, 2)
    caller = asyncio.ensure_future(store.claim(asks(job)))
    await asyncio.sleep(0)
    caller.cancel()

    async def given_back() -> bool:
        row = await led.the_row(job.id)
        return row.state == JobState.QUEUED and row.run_token is not None

    await eventually(given_back, 20, "the job to be given back")


async def test_interrupted_job_keeps_its_place(led: World) -> None:
    store = await led.worker()
    first, second = await sent(store, 2)
    await runs(store, first, Interrupted())
    assert await states(led, [first, second]) == ["queued", "waiting"]
    await runs(store, first)
    assert await states(led, [second]) == ["queued"]


async def test_job_without_a_payload_is_set_aside_and_the_group_says_so(led: World) -> None:
    store = await led.worker()
    first, second, third = await sent(store, 3)
    await led.execute(sa.delete(led.tables.payloads).where(led.tables.payloads.c.job_id == second.id))
    await runs(store, first)
    if await states(led, [second]) == ["queued"]:  # it is found when it is to be published
        await led.change(second.id, publish_at=clock.wall())
        await store.take_unpublished(None, 10, HOUR)
    row = await led.the_row(second.id)
    assert (row.state, row.reason) == (JobState.UNHANDLED, "its payload is gone")
    group = await the_group(store)
    assert group.reason == f"blocked by job {second.id}, which no worker can run: its payload is gone"
    assert await states(led, [third]) == ["waiting"]


# -- numbers


async def test_numbered_jobs_run_in_the_order_of_their_numbers(led: World) -> None:
    store = await led.worker()
    three, one = await numbered(store, 3, 1)
    assert await states(led, [three, one]) == ["waiting", "queued"]
    await runs(store, one)
    assert (await the_group(store)).reason == "position 2 has not been sent"
    [two] = await numbered(store, 2)
    assert await states(led, [three, two]) == ["waiting", "queued"]
    await runs(store, two)
    await runs(store, three)


async def test_several_numbers_run_at_once_but_none_before_one_that_is_missing(led: World) -> None:
    store = await led.worker()
    with_rule(store, concurrency=3)
    jobs = await numbered(store, 1, 2, 4)
    assert await states(led, jobs) == ["queued", "queued", "waiting"]
    jobs += await numbered(store, 3)
    assert await states(led, jobs) == ["queued", "queued", "waiting", "queued"]


async def test_scheduled_number_holds_up_those_behind_it(led: World) -> None:
    store = await led.worker()
    first = replace(new_job(group="g", due_in=30 * SECOND), position=1)
    await store.insert([first], publish_lease=None)
    [second] = await numbered(store, 2)
    assert await states(led, [first, second]) == ["scheduled", "waiting"]
    assert (await the_group(store)).reason == f"blocked by job {first.id}, scheduled until " + first.due_at.isoformat(
        timespec="seconds"
    )
    await led.change(first.id, wake_at=clock.wall())
    assert ids_of((await store.take_due(10, HOUR)).dispatches) == [first.id]
    await runs(store, first)
    await runs(store, second)


async def test_number_that_was_cancelled_is_not_waited_for(led: World) -> None:
    store = await led.worker()
    first, second, third, fifth = await numbered(store, 1, 2, 3, 5)
    await led.change(second.id, state="cancelled", final_state="cancelled", parked_at=None, finished_at=clock.wall())
    await led.execute(led.tables.groups.update().values(waiting=2))
    await runs(store, first)
    assert await states(led, [third, fifth]) == ["queued", "waiting"]
    assert await store.cancel_group("g", "no more") == 2
    assert (await the_group(store)).next_position == 4
    sixth, fourth = await numbered(store, 6, 4)
    assert await states(led, [sixth, fourth]) == ["waiting", "queued"]
    await runs(store, fourth)
    assert await states(led, [sixth]) == ["queued"]


# -- adopted


async def test_adopted_job_runs_when_the_group_is_free(led: World) -> None:
    store = await led.worker()
    foreign = new_job(group="g")
    request = request_of(foreign, promised=False)
    answer = await store.claim(request)
    assert (answer.verdict, answer.group) == (Verdict.GRANT, "g")
    await ends(store, request, answer)
    assert (await the_group(store)).state == "idle"


async def test_adopted_job_waits_in_its_row_behind_others(led: World) -> None:
    store = await led.worker()
    [first] = await sent(store)
    foreign = new_job(group="g")
    answer = await store.claim(request_of(foreign, promised=False))
    assert (answer.verdict, answer.group, answer.reason) == (Verdict.PARK, "g", BEHIND)
    row = await led.the_row(foreign.id)
    assert (row.state, row.publish_at, row.attempt) == (JobState.WAITING, None, 0)
    await runs(store, first)
    await runs(store, foreign, dispatch=2)


async def test_several_adopted_at_once_are_admitted_as_they_came(led: World) -> None:
    store = await led.worker()
    with_rule(store, concurrency=2)
    foreign = [new_job(job_id, group="g") for job_id in job_ids(4)]
    answers = await asyncio.gather(*(store.claim(request_of(job, promised=False)) for job in foreign))
    assert verdicts(answers) == [Verdict.GRANT] * 2 + [Verdict.PARK] * 2
    assert await order_of(store) == ids_of(foreign)


async def test_adopted_number_takes_its_turn(led: World) -> None:
    store = await led.worker()
    two, one = (replace(new_job(group="g"), position=n) for n in (2, 1))
    for job in (two, one):
        assert (await store.claim(request_of(job, promised=False))).verdict is Verdict.PARK
    assert numbers(await store.take_unpublished(None, 10, HOUR)) == [(one.id, 2)]
    await runs(store, one)
    await runs(store, two)


async def test_adopted_job_with_a_number_that_is_used_has_no_row(led: World) -> None:
    store = await led.worker()
    [first] = await numbered(store, 1)
    with pytest.raises(StoreError, match="Position 1 of group 'g' is used already"):
        await store.claim(request_of(replace(new_job(group="g"), position=1), promised=False))
    await runs(store, first)
