"""What operators do to groups and their jobs, on every database."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from jq_actors.errors import StoreError
from jq_actors.job import JobId, JobState
from jq_actors.outcome import Cancelled, Failed, Failure
from jq_actors.store.records import JobFilter, Retention, StillGroup
from jq_actors.store.tables import NO_PLACE

from .grouped import (
    HOUR,
    MINUTE,
    ended,
    ids_of,
    numbered,
    numbers,
    order_of,
    parked,
    published,
    running,
    sent,
    states,
    the_group,
    with_rule,
)
from .stores import LEASE, World, clock, got, granted, job_ids, new_job, queued, settled

FAILED = JobFilter(states=frozenset({JobState.FAILED}))


# -- pause, resume, cancel


async def test_a_group_can_be_paused_before_it_has_jobs(db: World) -> None:
    store = await db.worker()
    assert await store.pause_group("g", "ops: audit\0") is True
    assert await store.pause_group("g", "again") is False
    group = await the_group(store)
    assert (group.state, group.reason, group.waiting) == ("paused", "ops: audit\\x00", 0)
    assert await store.resume_group("g") == []
    assert await store.resume_group("g") is None
    assert await store.resume_group("unknown") is None


async def test_resume_names_the_queues_that_have_unfinished_jobs(db: World) -> None:
    store = await db.worker()
    await sent(store, 2)
    await sent(store, 1, queue="heavy")
    await ended(db, *await sent(store, 1, queue="done"))
    await store.pause_group("g", "ops")
    assert await store.resume_group("g") == ["heavy", "mail"]


async def test_a_resumed_group_is_the_first_that_the_relay_looks_at(db: World) -> None:
    """The broker may be away: nobody has its lanes served."""
    store = await db.worker()
    await published(db, await sent(store, 1))
    await store.pause_group("g", "ops")
    assert await store.still_groups(clock.wall() - HOUR, 10) == []
    await store.resume_group("g")
    assert await store.still_groups(clock.wall() - HOUR, 10) == [StillGroup("g", "mail")]


async def test_cancelling_a_group_leaves_what_runs(db: World) -> None:
    store = await db.worker()
    first, *rest = await sent(store, 3)
    [scheduled] = await sent(store, 1, due_in=HOUR)
    [other] = await sent(store, 1, "other")
    await running(db, first)
    assert await store.cancel_group("g", "no longer needed") == 3
    assert await states(db, [first, *rest, scheduled, other]) == ["running", *["cancelled"] * 3, "queued"]
    assert (await got(store, rest[0])).reason == "no longer needed"
    assert await store.cancel_group("g", "again") == 0
    assert await store.cancel_group("unknown", "why") == 0


# -- is a lane worth serving?


async def test_a_lane_is_worth_serving_unless_its_group_can_start_nothing_for_long(db: World) -> None:
    store = await db.worker()
    assert await store.has_turn("g", "mail")
    first, _ = await sent(store, 2)
    assert await store.has_turn("g", "mail")
    await running(db, first)
    assert await store.has_turn("g", "mail")
    await db.change(first.id, state="retrying", due_at=clock.wall() + timedelta(seconds=20))
    assert await store.has_turn("g", "mail")
    await db.change(first.id, due_at=clock.wall() + HOUR)
    assert not await store.has_turn("g", "mail")
    with_rule(store, overtake=True)
    assert await store.has_turn("g", "mail")
    with_rule(store)
    await db.change(first.id, state="unhandled")
    assert not await store.has_turn("g", "mail")
    await ended(db, first)
    assert await store.has_turn("g", "mail")
    for group in ("g", "nothing left"):
        await store.pause_group(group, "ops")
    assert not await store.has_turn("g", "mail")
    assert await store.has_turn("nothing left", "mail")


# -- move


async def test_a_job_moves_to_the_front_and_the_rest_keep_their_order(db: World) -> None:
    store = await db.worker()
    jobs = await sent(store, 4)
    await published(db, jobs)
    assert await store.move(jobs[2].id, None) is JobState.QUEUED
    assert await order_of(store) == ids_of([jobs[2], jobs[0], jobs[1], jobs[3]])
    assert await store.move(jobs[3].id, None) is JobState.QUEUED
    assert await order_of(store) == ids_of([jobs[3], jobs[2], jobs[0], jobs[1]])
    taken = await store.take_unpublished(None, 10, LEASE)
    assert sorted(numbers(taken)) == sorted([(jobs[2].id, 2), (jobs[3].id, 2)])


async def test_a_job_moves_to_the_end_of_another_group_before_what_comes_later(db: World) -> None:
    store = await db.worker()
    first, second, third = await sent(store, 3)
    others = await sent(store, 2, "other")
    await parked(db, [second])
    assert await store.move(second.id, "other") is JobState.WAITING
    assert await store.move(first.id, "other") is JobState.QUEUED
    others += [second, first, *await sent(store, 1, "other")]
    assert await order_of(store, "other") == ids_of(others)
    assert await order_of(store) == [third.id]
    row = await db.the_row(second.id)
    assert (row.state, row.dispatch, row.parked_at, row.group_key) == ("queued", 2, None, "other")
    assert await store.move(third.id, "new") is JobState.QUEUED
    assert await order_of(store, "new") == [third.id]


async def test_when_the_head_moves_away_those_parked_behind_it_are_released(db: World) -> None:
    store = await db.worker()
    first, *behind = await sent(store, 3)
    await parked(db, behind)
    await store.move(first.id, "other")
    assert await states(db, behind) == ["queued"] * 2


@pytest.mark.parametrize("state", ["scheduled", "retrying", "unhandled"])
async def test_what_is_not_in_a_lane_keeps_its_state(db: World, state: str) -> None:
    store = await db.worker()
    [first] = await sent(store, 1)
    [job] = await sent(store, 1, due_in=HOUR)
    if state != "scheduled":
        await db.change(job.id, state=state, order_key=None)
    assert await store.move(job.id, None) is JobState(state)
    row = await db.the_row(job.id)
    assert (row.state, row.dispatch, row.wake_at is None) == (state, 1, False)
    assert (row.order_key == NO_PLACE) is (state == "scheduled")
    assert await order_of(store) == ids_of([first] if state == "scheduled" else [job, first])


async def test_what_cannot_be_moved(db: World) -> None:
    store = await db.worker()
    runs, has_ended = await sent(store, 2)
    await running(db, runs)
    await ended(db, has_ended)
    [alone] = await sent(store, 1, None)
    [by_number] = await numbered(store, 1, group="counts")
    [plain] = await sent(store, 1, "plain")
    for job, group, why in [
        (runs, None, "running"),
        (has_ended, "other", "succeeded"),
        (alone, "other", "in no group"),
        (by_number, None, "numbered"),
        (plain, "counts", "numbered"),
    ]:
        before = await db.the_row(job.id)
        with pytest.raises(StoreError, match=why):
            await store.move(job.id, group)
        assert await db.the_row(job.id) == before
    assert await store.move(job_ids(1)[0], None) is None
    assert await store.move(JobId("no uuid"), None) is None


# -- retry


async def test_retried_jobs_start_anew_in_their_old_places(db: World) -> None:
    store = await db.worker()
    first, second, third = await queued(store, 3)
    token = await granted(store, first)
    assert await settled(store, first, token, Failed(Failure(None, "no")))
    assert await settled(store, second, await granted(store, second), Cancelled("ops"))
    await db.change(first.id, crashes=2, attempt=4)
    assert await store.retry(JobFilter(), [second.id, first.id, third.id], 10) == ids_of([first, second])
    for job in (first, second):
        found, row = await got(store, job), await db.the_row(job.id)
        assert (found.state, found.dispatch, found.attempt, found.crashes) == (JobState.QUEUED, 2, 0, 0)
        assert (found.finished_at, found.reason, row.final_state) == (None, None, None)
        assert [run.number for run in found.attempts] == [1]
    assert numbers(await store.take_unpublished(None, 10, LEASE)) == [(first.id, 2), (second.id, 2)]
    # What the run before might still write comes to nothing.
    assert not await settled(store, first, token, Cancelled("late"))
    await granted(store, first, dispatch=2)
    assert [run.number for run in (await got(store, first)).attempts] == [1]


async def test_a_group_replays_in_its_first_order(db: World) -> None:
    store = await db.worker()
    jobs = await sent(store, 5)
    await ended(db, jobs[0], jobs[2], state="failed")
    await ended(db, jobs[1])
    assert await store.retry(replace(FAILED, group="g"), [], 10) == ids_of([jobs[0], jobs[2]])
    assert await order_of(store) == ids_of([jobs[0], *jobs[2:]])


async def test_the_oldest_are_retried_first_and_only_those_wanted(db: World) -> None:
    store = await db.worker()
    jobs = [new_job(job_id, actor="a" if n % 2 else "b", tags=("t",)) for n, job_id in enumerate(job_ids(8))]
    await store.insert(jobs, publish_lease=HOUR)
    await ended(db, *jobs[:6], state="failed")
    await ended(db, jobs[7], state="cancelled")
    where = replace(FAILED, actor="a")
    assert await store.retry(where, [], 2) == ids_of([jobs[1], jobs[3]])
    assert await store.retry(replace(where, tags=("u",)), [], 9) == []
    assert await store.retry(replace(where, tags=("t",)), [], 9) == [jobs[5].id]
    assert await store.retry(JobFilter(states=frozenset({JobState.QUEUED})), [], 9) == []
    assert await store.retry(JobFilter(), [], 9) == ids_of([jobs[0], jobs[2], jobs[4], jobs[7]])
    assert await store.retry(JobFilter(), [JobId("no uuid"), job_ids(1)[0]], 9) == []


async def test_a_retried_number_runs_first_whatever_was_pruned_meanwhile(db: World) -> None:
    store = await db.worker()
    first, second, third, fourth = await numbered(store, 1, 2, 3, 4)
    for job in (first, second, third):
        claim = await granted(store, job)
        assert await settled(store, job, claim, Failed(Failure(None, "no")))
    await db.execute(sa.delete(db.tables.jobs).where(db.tables.jobs.c.id.in_([second.id, third.id])))
    assert await store.retry(JobFilter(), [first.id], 1) == [first.id]
    assert await order_of(store) == ids_of([first, fourth])
    assert (await the_group(store)).next_position == 1
    token = await granted(store, first, dispatch=2)
    assert await settled(store, first, token, Failed(Failure(None, "no")))
    assert (await the_group(store)).state == "queued"
    await granted(store, fourth)


async def test_what_was_cancelled_before_it_was_due_has_the_place_of_its_sending(db: World) -> None:
    store = await db.worker()
    [late] = await sent(store, 1, due_in=HOUR)
    [second] = await sent(store, 1)
    await db.change(late.id, state="cancelled", final_state="cancelled", wake_at=None, finished_at=clock.wall())
    assert await store.retry(JobFilter(), [late.id], 1) == [late.id]
    assert await order_of(store) == ids_of([late, second])
    assert (await got(store, late)).due_at <= clock.wall() + MINUTE


async def test_retried_jobs_are_not_pruned(db: World) -> None:
    store = await db.worker()
    [job] = await sent(store, 1)
    await ended(db, job, state="failed")
    await store.retry(JobFilter(), [job.id], 1)
    assert await store.prune(Retention(failed=timedelta()), 10) == 0
