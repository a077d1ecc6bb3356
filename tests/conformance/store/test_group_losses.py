"""Workers that die with jobs of groups: taken over by a delivery or by a relay, in their places, and never twice."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
import sqlalchemy as sa

from jq_actors.events import GroupCancelled, GroupPaused, JobFailed, JobsReleased, JobTakenOver
from jq_actors.model.claim_rules import Verdict
from jq_actors.model.group_rules import OnFailure
from jq_actors.model.outcome import Failure, Retrying, Succeeded
from jq_actors.store.records import Claim, NewJob, NextJob, Settlement
from jq_actors.store.sql import SqlStore

from .grouped import HOUR, ids_of, numbered, numbers, sent, states, with_rule
from .locking import group_held, somebody_waits
from .stores import LEASES, ME, World, clock, got, worker_in_another_process
from .turns import FITS, a_chain, asks, ends, goes_on, runs

FAILURE = Failure(None, "ValueError: no")


async def a_worker(db: World, name: str = "lost") -> SqlStore:
    store = await db.worker(identity=replace(ME, id=name))
    store.fits = FITS
    return store


async def a_taker(db: World) -> SqlStore:
    """A worker in which what the lost one had can run."""
    store = await db.worker()
    store.fits = FITS
    return store


async def lapse(db: World, name: str = "lost") -> None:
    """Let a worker's lease be over."""
    workers = db.tables.workers
    await db.execute(sa.update(workers).where(workers.c.id == name).values(lease_until=clock.wall() - HOUR))


async def began(store: SqlStore, jobs: list[NewJob]) -> NextJob:
    """The delivery of the first of ``jobs`` began a chain; the one that runs now."""
    settled = await runs(store, jobs[0], chain=a_chain())
    assert settled.next is not None
    assert settled.next.job_id == jobs[1].id
    return settled.next


# -- the job of the delivery itself


async def test_running_job_of_a_lost_worker_is_taken_over_in_its_place(led: World) -> None:
    lost, store = await a_worker(led), await led.worker()
    taken_over = led.record(JobTakenOver)
    first, second = await sent(store, 2)
    assert (await lost.claim(asks(first))).verdict is Verdict.GRANT
    assert (await store.claim(asks(first))).verdict is Verdict.HOLD
    await lapse(led)
    request = asks(first, redelivered=True)
    taken = await store.claim(request)
    assert (taken.verdict, taken.attempt, taken.crashes, taken.group) == (Verdict.GRANT, 2, 1, "g")
    assert taken.instead is None
    assert taken_over.seen == [JobTakenOver(first.id, 1)]
    assert await states(led, [first, second]) == ["running", "waiting"]
    await ends(store, request, taken)
    assert await states(led, [second]) == ["queued"]


async def test_take_over_in_a_paused_group_starts_nothing(led: World) -> None:
    lost, store = await a_worker(led), await led.worker()
    first, second = await sent(store, 2)
    await lost.claim(asks(first))
    await store.pause_group("g", "by ops")
    await lapse(led)
    assert (await store.claim(asks(first, redelivered=True))).verdict is Verdict.DROP_STALE
    assert await states(led, [first, second]) == ["waiting", "waiting"]
    assert (await got(store, first)).crashes == 1
    assert await store.resume_group("g") == 1
    await runs(store, first)


async def test_take_over_of_one_before_which_another_was_moved_lets_that_one_go_first(led: World) -> None:
    lost, store = await a_worker(led), await led.worker()
    first, second = await sent(store, 2)
    await lost.claim(asks(first))
    await store.move(second.id, None)
    await lapse(led)
    assert (await store.claim(asks(first, redelivered=True))).verdict is Verdict.DROP_STALE
    assert await states(led, [first, second]) == ["waiting", "queued"]
    assert numbers(await store.take_unpublished(None, 10, HOUR)) == [(second.id, 2)]


async def test_job_that_loses_too_many_workers_gives_its_place_away(led: World) -> None:
    lost = await a_worker(led)
    store = await led.worker(leases=replace(LEASES, max_crashes=1))
    told = led.record(JobFailed, JobsReleased)
    first, second = await sent(store, 2)
    await lost.claim(asks(first))
    await lapse(led)
    assert (await store.claim(asks(first, redelivered=True))).verdict is Verdict.DROP_FINAL
    assert await states(led, [first, second]) == ["failed", "queued"]
    assert numbers(await store.take_unpublished(None, 10, HOUR)) == [(second.id, 2)]
    assert [type(event) for event in told.seen] == [JobFailed, JobsReleased]


# -- the chain that a delivery began


@pytest.mark.parametrize("job", ["of the delivery", "retrying"])
async def test_delivery_that_comes_back_takes_over_what_its_lost_worker_had(led: World, job: str) -> None:
    lost, store = await a_worker(led), await a_taker(led)
    for each in (lost, store):
        with_rule(each, overtake=True)
    first, second, third = await sent(store, 3, body=b'{"args":["x"]}')
    outcome = Retrying(FAILURE, HOUR) if job == "retrying" else Succeeded()
    settled = await runs(lost, first, outcome, chain=a_chain())
    assert settled.next is not None
    await lapse(led)
    request = asks(first, redelivered=True)
    taken = await store.claim(request)
    assert (taken.verdict, taken.attempt, taken.crashes, taken.group) == (Verdict.GRANT, 2, 1, "g")
    assert taken.instead == NextJob(second.id, 2, request.run_token, 2, 1, "mail", "g", b'{"args":["x"]}')
    assert await states(led, [second, third]) == ["running", "waiting"]
    # And it goes on with the chain, under the delivery that came back.
    follower = (await ends(store, request, taken, chain=a_chain())).next
    assert follower is not None
    assert follower.job_id == third.id


async def test_delivery_that_comes_back_is_held_while_the_worker_of_its_chain_lives(led: World) -> None:
    owner, store = await a_worker(led), await a_taker(led)
    jobs = await sent(store, 2)
    running = await began(owner, jobs)
    request = asks(jobs[0], redelivered=True)
    held = await store.claim(request)
    assert (held.verdict, held.group, held.own_token) == (Verdict.HOLD, "g", None)
    await goes_on(owner, running)
    assert (await store.claim(request)).verdict is Verdict.DROP_FINAL
    assert await states(led, jobs) == ["succeeded"] * 2


async def test_delivery_that_comes_back_to_the_worker_of_its_chain_is_dropped(led: World) -> None:
    """Its connection was lost, not the worker: the lease in the row is the safety copy from now on."""
    owner = await a_worker(led)
    jobs = await sent(owner, 2)
    await began(owner, jobs)
    assert (await owner.claim(asks(jobs[0], redelivered=True))).verdict is Verdict.DROP_FINAL
    assert await states(led, jobs) == ["succeeded", "running"]


@pytest.mark.parametrize("next_one", ["none", "queued", "of another worker"])
async def test_delivery_that_comes_back_is_dropped_when_its_worker_has_nothing(led: World, next_one: str) -> None:
    lost, store, other = await a_worker(led), await a_taker(led), await a_worker(led, "other")
    first, *rest = await sent(store, 1 if next_one == "none" else 2)
    await runs(lost, first)
    if next_one == "of another worker":
        assert (await other.claim(asks(rest[0], dispatch=2))).verdict is Verdict.GRANT
        await lapse(led, "other")
    await lapse(led)
    assert (await store.claim(asks(first, redelivered=True))).verdict is Verdict.DROP_FINAL
    expected = {"none": [], "queued": ["queued"], "of another worker": ["running"]}[next_one]
    assert await states(led, rest) == expected


async def test_first_delivery_of_what_has_ended_is_dropped_whatever_runs(led: World) -> None:
    lost, store = await a_worker(led), await a_taker(led)
    jobs = await sent(store, 2)
    await began(lost, jobs)
    await lapse(led)
    assert (await store.claim(asks(jobs[0]))).verdict is Verdict.DROP_FINAL
    assert await states(led, jobs) == ["succeeded", "running"]


async def test_worker_of_a_chain_whose_process_is_gone_is_taken_over_from_at_once(led: World) -> None:
    store = await a_taker(led)
    async with worker_in_another_process("victim") as identity:
        victim = await led.worker(identity=identity)
        victim.fits = FITS
        jobs = await sent(store, 2)
        await began(victim, jobs)
        assert (await store.claim(asks(jobs[0], redelivered=True))).verdict is Verdict.HOLD
    taken = await store.claim(asks(jobs[0], redelivered=True))
    assert taken.instead is not None
    assert taken.instead.job_id == jobs[1].id


async def test_chain_is_taken_over_once_by_whichever_delivery_comes_back_first(led: World) -> None:
    lost, store = await a_worker(led), await a_taker(led)
    jobs = await sent(store, 3)
    running = await began(lost, jobs)
    settled = await goes_on(lost, running, chain=a_chain())
    assert settled.next is not None
    await lapse(led)
    # The second one was published once, and its copy is still somewhere.
    answers = [await store.claim(asks(job, dispatch=n, redelivered=True)) for job, n in ((jobs[0], 1), (jobs[1], 2))]
    assert [answer.verdict for answer in answers] == [Verdict.GRANT, Verdict.DROP_FINAL]
    assert await states(led, jobs) == ["succeeded", "succeeded", "running"]


async def test_each_of_two_chains_comes_back_with_its_own_delivery(led: World) -> None:
    lost, store = await a_worker(led), await a_taker(led)
    for each in (lost, store):
        with_rule(each, concurrency=2)
    jobs = await sent(store, 4)
    settled = [await runs(lost, job, chain=a_chain()) for job in jobs[:2]]
    assert ids_of(jobs[2:]) == [each.next.job_id for each in settled if each.next is not None]
    await lapse(led)
    answers = [await store.claim(asks(job, redelivered=True)) for job in jobs[:2]]
    taken = {answer.instead.job_id for answer in answers if answer.instead is not None}
    assert taken == {jobs[2].id, jobs[3].id}


async def test_chain_in_a_paused_group_is_not_gone_on_with(led: World) -> None:
    lost, store = await a_worker(led), await a_taker(led)
    jobs = await sent(store, 2)
    await began(lost, jobs)
    await store.pause_group("g", "by ops")
    await lapse(led)
    answer: Claim = await store.claim(asks(jobs[0], redelivered=True))
    assert answer.verdict.drops
    assert await states(led, jobs) == ["succeeded", "waiting"]


async def test_numbered_chain_is_taken_over(led: World) -> None:
    lost, store = await a_worker(led), await a_taker(led)
    jobs = await numbered(store, 1, 2)
    await began(lost, jobs)
    await lapse(led)
    dispatch = (await got(store, jobs[0])).dispatch
    taken = await store.claim(asks(jobs[0], dispatch=dispatch, redelivered=True))
    assert taken.instead is not None
    assert taken.instead.job_id == jobs[1].id


async def test_chain_is_left_to_others_where_its_job_does_not_fit_the_slot_of_the_delivery(led: World) -> None:
    """A coroutine in a thread's slot, or a job of a queue that this worker does not serve."""
    lost, store = await a_worker(led), await a_taker(led)
    jobs = await sent(store, 3)
    await began(lost, jobs)
    await lapse(led)
    told = led.record(JobsReleased, JobTakenOver)
    answer = await store.claim(asks(jobs[0], redelivered=True, slot="threads"))
    assert (answer.verdict, answer.instead) == (Verdict.DROP_STALE, None)
    assert told.seen == [JobTakenOver(jobs[1].id, 1), JobsReleased(1)]
    assert await states(led, jobs) == ["succeeded", "queued", "waiting"]
    [published] = await store.take_unpublished(None, 10, HOUR)
    assert (published.job_id, published.dispatch) == (jobs[1].id, 2)
    request = asks(jobs[1], dispatch=2)
    assert (await store.claim(request)).verdict is Verdict.GRANT


# -- relays


async def test_relay_queues_the_lost_job_in_its_place(led: World) -> None:
    lost, relay = await a_worker(led), await led.worker()
    first, second = await sent(relay, 2)
    await lost.claim(asks(first))
    await lapse(led)
    assert (await relay.recover(10)).queued == (first.id,)
    assert await states(led, [first, second]) == ["queued", "waiting"]
    assert numbers(await relay.take_unpublished(None, 10, HOUR)) == [(first.id, 1)]


async def test_relay_lets_the_lost_job_of_a_paused_group_wait(led: World) -> None:
    lost, relay = await a_worker(led), await led.worker()
    first, second = await sent(relay, 2)
    await lost.claim(asks(first))
    await relay.pause_group("g", "by ops")
    await lapse(led)
    await relay.recover(10)
    assert await states(led, [first, second]) == ["waiting", "waiting"]
    assert (await relay.claim(asks(first))).verdict is Verdict.DROP_STALE
    assert await relay.resume_group("g") == 1
    assert await states(led, [first, second]) == ["queued", "waiting"]


@pytest.mark.parametrize("rule", [OnFailure.CONTINUE, OnFailure.PAUSE, OnFailure.CANCEL_REST])
async def test_loss_that_was_one_too_many_does_to_the_group_what_its_rule_says(led: World, rule: OnFailure) -> None:
    relay = await led.worker(leases=replace(LEASES, max_crashes=1))
    lost = await a_worker(led)
    for each in (lost, relay):
        with_rule(each, on_failure=rule, concurrency=2)
    told = led.record(GroupPaused, GroupCancelled, JobsReleased)
    jobs = await sent(relay, 4)
    await lost.claim(asks(jobs[0]))
    await lapse(led)
    assert (await relay.recover(10)).failed == (jobs[0].id,)
    expected = {
        OnFailure.CONTINUE: ["queued", "queued", "waiting"],
        OnFailure.PAUSE: ["waiting"] * 3,
        OnFailure.CANCEL_REST: ["cancelled"] * 3,
    }
    assert await states(led, jobs[1:]) == expected[rule]
    kinds = {OnFailure.CONTINUE: JobsReleased, OnFailure.PAUSE: GroupPaused, OnFailure.CANCEL_REST: GroupCancelled}
    assert [type(event) for event in told.seen] == [kinds[rule]]


async def test_worker_that_leaves_gives_its_jobs_back_in_their_places(led: World) -> None:
    leaving, store = await a_worker(led), await led.worker()
    first, second = await sent(store, 2)
    await leaving.claim(asks(first))
    [other] = await sent(store, 1, "paused")
    await leaving.claim(asks(other))
    await store.pause_group("paused", "by ops")
    await leaving.leave()
    assert await states(led, [first, second, other]) == ["queued", "waiting", "waiting"]
    assert (await got(store, first)).attempt == 0
    assert numbers(await store.take_unpublished(None, 10, HOUR)) == [(first.id, 1)]


async def test_worker_that_leaves_locks_groups_before_their_jobs(pg: World) -> None:
    """Else it and whoever pauses the group wait for each other."""
    leaving, store = await a_worker(pg), await pg.worker()
    for each in (leaving, store):
        with_rule(each, concurrency=2)
    first, second = await sent(store, 2)
    await leaving.claim(asks(first))
    await pg.change(second.id, lane_owner="lost", publish_at=None, published_at=clock.wall())
    async with group_held(pg) as connection:
        leave = asyncio.ensure_future(leaving.leave())
        await somebody_waits(pg)
        jobs = pg.tables.jobs
        await connection.execute(sa.select(jobs).where(jobs.c.id == second.id).with_for_update(nowait=True))
    await leave
    assert numbers(await store.take_unpublished(None, 10, HOUR)) == [(first.id, 1), (second.id, 1)]


async def test_late_outcome_of_a_lost_run_gives_no_turn_on(led: World) -> None:
    lost, relay = await a_worker(led), await led.worker()
    first, second = await sent(relay, 2)
    request = asks(first)
    await lost.claim(request)
    await lapse(led)
    await relay.recover(10)
    now = lost.now()
    late = Settlement(first.id, request.run_token, Succeeded(), now, now, group="g", chain=a_chain())
    assert not (await lost.settle(late)).written
    assert await states(led, [first, second]) == ["queued", "waiting"]
