"""What operators do to groups and their jobs, on every database."""

from __future__ import annotations

from datetime import timedelta

import pytest

from jq_actors.errors import StoreError
from jq_actors.job import JobId, JobState
from jq_actors.outcome import Failure, Retrying, Unhandled
from jq_actors.protocol import Verdict

from jq_actors.store.tables import NO_PLACE

from .grouped import HOUR, ids_of, numbered, numbers, order_of, sent, states, the_group, with_rule
from .stores import LEASE, World, clock, got, job_ids
from .turns import asks, ends, runs

FAILURE = Failure(None, "no")


# -- pause, resume, cancel


async def test_a_group_can_be_paused_before_it_has_jobs(led: World) -> None:
    store = await led.worker()
    assert await store.pause_group("g", "ops: audit\0") is True
    assert await store.pause_group("g", "again") is False
    group = await the_group(store)
    assert (group.state, group.reason, group.waiting) == ("paused", "ops: audit\\x00", 0)
    assert await store.resume_group("g") == 0
    assert await store.resume_group("g") is None
    assert await store.resume_group("unknown") is None


async def test_a_paused_group_starts_nothing_and_goes_on_where_it_was_when_it_is_resumed(led: World) -> None:
    store = await led.worker()
    with_rule(store, concurrency=2)
    jobs = await sent(store, 4)
    request = asks(jobs[1])
    answer = await store.claim(request)
    assert await store.pause_group("g", "by ops")
    assert await states(led, jobs) == ["waiting", "running", "waiting", "waiting"]
    row = await led.the_row(jobs[0].id)
    assert (row.reason, row.publish_at, row.published_at) == ("its group is paused", None, None)
    # Its copy is somewhere, and does not run.
    assert (await store.claim(asks(jobs[0]))).verdict is Verdict.DROP_STALE
    await ends(store, request, answer)
    assert await states(led, jobs) == ["waiting", "succeeded", "waiting", "waiting"]
    assert await store.resume_group("g") == 2
    assert await states(led, jobs) == ["queued", "succeeded", "queued", "waiting"]
    assert numbers(await store.take_unpublished(None, 10, LEASE)) == [(jobs[0].id, 2), (jobs[2].id, 2)]


async def test_what_is_published_just_when_its_group_is_paused_stays_where_it_is(led: World) -> None:
    """The mark comes too late, and so does a lease that is given back."""
    store = await led.worker()
    first, second = [(await sent(store, 1, name))[0] for name in ("a", "b")]
    for name in ("a", "b"):
        await store.pause_group(name, "by ops")
    await store.mark_published([(first.id, 1)])
    await store.release_publish_lease([(second.id, 1)])
    assert await store.take_unpublished(None, 10, LEASE) == []
    assert await store.take_missing("mail", clock.wall() + HOUR, 10, LEASE) == []
    assert await states(led, [first, second]) == ["waiting"] * 2


async def test_cancelling_a_group_leaves_what_runs(led: World) -> None:
    store = await led.worker()
    first, *rest = await sent(store, 3)
    [scheduled] = await sent(store, 1, due_in=HOUR)
    [other] = await sent(store, 1, "other")
    request = asks(first)
    answer = await store.claim(request)
    assert await store.cancel_group("g", "no longer needed") == 3
    assert await states(led, [first, *rest, scheduled, other]) == ["running", *["cancelled"] * 3, "queued"]
    assert (await got(store, rest[0])).reason == "no longer needed"
    row = await led.the_row(scheduled.id)
    assert (row.final_state, row.wake_at, row.publish_at, row.parked_at) == ("cancelled", None, None, None)
    assert await store.cancel_group("g", "again") == 0
    assert await store.cancel_group("unknown", "why") == 0
    # What is sent now waits for what runs, and for nothing else.
    [later] = await sent(store, 1)
    assert await states(led, [later]) == ["waiting"]
    await ends(store, request, answer)
    assert await states(led, [later]) == ["queued"]


# -- move


async def test_a_job_moves_to_the_front_and_the_rest_keep_their_order(led: World) -> None:
    store = await led.worker()
    jobs = await sent(store, 4)
    assert await store.move(jobs[2].id, None) is JobState.WAITING
    assert await order_of(store) == ids_of([jobs[2], jobs[0], jobs[1], jobs[3]])
    # What was at the front and has not started waits again.
    assert await states(led, jobs) == ["waiting", "waiting", "queued", "waiting"]
    assert (await store.claim(asks(jobs[0]))).verdict is Verdict.DROP_STALE
    assert await store.move(jobs[3].id, None) is JobState.WAITING
    assert await store.move(jobs[3].id, None) is JobState.QUEUED
    in_order = [jobs[3], jobs[2], jobs[0], jobs[1]]
    assert await order_of(store) == ids_of(in_order)
    [(job_id, dispatch)] = numbers(await store.take_unpublished(None, 10, LEASE))
    assert job_id == jobs[3].id
    assert (await store.claim(asks(jobs[3], dispatch=dispatch - 1))).verdict is Verdict.DROP_STALE
    for job in in_order:
        await runs(store, job)


async def test_a_job_that_is_moved_before_one_that_runs_waits_for_it(led: World) -> None:
    store = await led.worker()
    first, second, third = await sent(store, 3)
    request = asks(first)
    answer = await store.claim(request)
    assert await store.move(third.id, None) is JobState.WAITING
    assert await order_of(store) == ids_of([third, first, second])
    assert await states(led, [first, second, third]) == ["running", "waiting", "waiting"]
    await ends(store, request, answer)
    assert await states(led, [second, third]) == ["waiting", "queued"]


@pytest.mark.parametrize("outcome", [Retrying(FAILURE, HOUR), Unhandled("no actor")], ids=repr)
async def test_a_job_that_is_moved_before_one_that_blocks_the_group_goes_first(
    led: World, outcome: Retrying | Unhandled
) -> None:
    store = await led.worker()
    first, second, third = await sent(store, 3)
    await runs(store, first, outcome)
    assert await store.move(third.id, None) is JobState.WAITING
    assert await states(led, [second, third]) == ["waiting", "queued"]
    await runs(store, third)
    # Then it blocks the group again.
    assert await states(led, [second]) == ["waiting"]
    assert str(first.id) in str((await the_group(store)).reason)


async def test_a_job_moves_to_the_end_of_another_group_before_what_comes_later(led: World) -> None:
    store = await led.worker()
    first, second, third = await sent(store, 3)
    others = await sent(store, 2, "other")
    assert await store.move(second.id, "other") is JobState.WAITING
    assert await store.move(first.id, "other") is JobState.QUEUED
    others += [second, first, *await sent(store, 1, "other")]
    assert await order_of(store, "other") == ids_of(others)
    assert await order_of(store) == [third.id]
    # The place that it had is given on, and where it is now it waits.
    assert await states(led, [third, *others]) == ["queued", "queued", *["waiting"] * 4]
    assert await store.move(third.id, "new") is JobState.QUEUED
    assert await order_of(store, "new") == [third.id]
    row = await led.the_row(third.id)
    assert (row.state, row.group_key, row.parked_at) == ("queued", "new", None)
    assert (await the_group(store)).state == "idle"


@pytest.mark.parametrize("to_front", [True, False])
async def test_a_job_moves_in_a_paused_group_and_starts_when_it_is_resumed(led: World, to_front: bool) -> None:
    store = await led.worker()
    first, second = await sent(store, 2)
    [other] = await sent(store, 1, "other")
    await store.pause_group("g", "by ops")
    assert await store.move(second.id if to_front else other.id, None if to_front else "g") is not None
    jobs = [second, first] if to_front else [first, second, other]
    assert await order_of(store) == ids_of(jobs)
    assert await states(led, jobs) == ["waiting"] * len(jobs)
    await store.resume_group("g")
    for job in jobs:
        await runs(store, job)


@pytest.mark.parametrize("state", ["scheduled", "retrying", "unhandled"])
async def test_what_cannot_start_now_keeps_its_state(led: World, state: str) -> None:
    store = await led.worker()
    [job] = await sent(store, 1, due_in=HOUR if state == "scheduled" else timedelta())
    if state != "scheduled":
        await runs(store, job, Retrying(FAILURE, HOUR) if state == "retrying" else Unhandled("no actor"))
    [second] = await sent(store, 1)
    before = await led.the_row(job.id)
    assert await store.move(job.id, None) is JobState(state)
    assert await store.move(job.id, "other") is JobState(state)
    row = await led.the_row(job.id)
    assert (row.state, row.dispatch, row.wake_at, row.due_at) == (state, 1, before.wake_at, before.due_at)
    assert (row.order_key == NO_PLACE) is (state == "scheduled")
    # It blocks the group that it is in now, if it does, and not the other one any more.
    assert row.has_place is (state != "scheduled")
    assert await states(led, [second]) == ["queued"]


async def test_what_cannot_be_moved(led: World) -> None:
    store = await led.worker()
    [has_ended, runs_] = await sent(store, 2)
    await runs(store, has_ended)
    await store.claim(asks(runs_, dispatch=2))
    [alone] = await sent(store, 1, None)
    [by_number] = await numbered(store, 1, group="counts")
    [plain] = await sent(store, 1, "plain")
    for job, group, why in [
        (runs_, None, "running"),
        (has_ended, "other", "succeeded"),
        (alone, "other", "in no group"),
        (by_number, None, "numbered"),
        (plain, "counts", "numbered"),
    ]:
        before = await led.the_row(job.id)
        with pytest.raises(StoreError, match=why):
            await store.move(job.id, group)
        assert await led.the_row(job.id) == before
    assert await store.move(job_ids(1)[0], None) is None
    assert await store.move(JobId("no uuid"), None) is None


