"""What operators do to groups and their jobs, on every database."""

from __future__ import annotations

from datetime import timedelta

import pytest

from jq_actors.errors import StoreError
from jq_actors.model.claim_rules import Verdict
from jq_actors.model.job import JobId, JobState
from jq_actors.model.outcome import Failed, Failure, Outcome, Retrying, Unhandled
from jq_actors.store.records import JobFilter
from jq_actors.store.tables import NO_PLACE

from .grouped import HOUR, ids_of, numbered, numbers, order_of, sent, states, the_group, with_rule
from .stores import LEASE, World, got, job_ids, verdicts
from .turns import asks, ends, runs

FAILED = JobFilter(states=frozenset({JobState.FAILED}))
FAILURE = Failure(None, "no")
STUCK: dict[str, Outcome] = {"retrying": Retrying(FAILURE, HOUR), "unhandled": Unhandled("no actor")}


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


async def test_resume_releases_as_many_as_may_run_in_whatever_queues_they_are(led: World) -> None:
    store = await led.worker()
    with_rule(store, concurrency=3)
    done, active, first, _ = [(await sent(store, queue=queue))[0] for queue in ("done", "mail", "mail", "mail")]
    await runs(store, done)
    request = asks(active)
    answer = await store.claim(request)
    await store.pause_group("g", "ops")
    [second] = await sent(store, queue="heavy")
    await store.move(second.id, None)
    assert await store.resume_group("g") == 2
    taken = await store.take_unpublished(None, 10, LEASE)
    assert sorted((one.job_id, one.queue) for one in taken) == sorted([(first.id, "mail"), (second.id, "heavy")])
    await ends(store, request, answer)


async def test_paused_group_starts_nothing_and_a_relay_publishes_it_when_it_is_resumed(led: World) -> None:
    """The broker may be away: nobody brings there what is released."""
    store = await led.worker()
    first, second = await sent(store, 2)
    assert await store.pause_group("g", "ops")
    assert await states(led, [first, second]) == ["waiting"] * 2
    assert verdicts([await store.claim(asks(job)) for job in (first, second)]) == [Verdict.DROP_STALE] * 2
    assert await store.take_unpublished(None, 10, LEASE) == []
    assert await store.resume_group("g") == 1
    assert numbers(await store.take_unpublished(None, 10, LEASE)) == [(first.id, 2)]
    # What was published before the pause does not start it once more.
    assert (await store.claim(asks(first))).verdict is Verdict.DROP_STALE
    for job in (first, second):
        await runs(store, job)


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
    assert await store.cancel_group("g", "again") == 0
    assert await store.cancel_group("unknown", "why") == 0
    # It goes on with what comes later, behind what still runs.
    [later] = await sent(store)
    assert await states(led, [later]) == ["waiting"]
    await ends(store, request, answer)
    await runs(store, later)


@pytest.mark.parametrize("state", ["queued", "retrying", "unhandled"])
async def test_cancelled_group_has_all_its_places_again(led: World, state: str) -> None:
    store = await led.worker()
    first, second = await sent(store, 2)
    if state in STUCK:
        await runs(store, first, STUCK[state])
    assert await states(led, [first, second]) == [state, "waiting"]
    assert await store.cancel_group("g", "no longer needed") == 2
    assert (await store.claim(asks(first))).verdict is Verdict.DROP_FINAL
    [later] = await sent(store)
    await runs(store, later)


# -- what blocks a group


@pytest.mark.parametrize("state", STUCK)
async def test_group_starts_nothing_behind_what_blocks_it_until_that_has_ended(led: World, state: str) -> None:
    store = await led.worker()
    first, second = await sent(store, 2)
    await runs(store, first, STUCK[state])
    assert await states(led, [first, second]) == [state, "waiting"]
    for _ in range(2):  # nor by a pause that is over
        assert (await the_group(store)).state == "blocked"
        await store.pause_group("g", "ops")
        assert await store.resume_group("g") == 0
    await store.move(first.id, "other")
    assert await states(led, [first, second]) == [state, "queued"]
    await runs(store, second)


async def test_others_overtake_what_waits_for_its_retry_where_they_may(led: World) -> None:
    store = await led.worker()
    with_rule(store, overtake=True)
    first, second, third = await sent(store, 3)
    await runs(store, first, STUCK["retrying"])
    await runs(store, second, STUCK["unhandled"])
    assert await states(led, [first, second, third]) == ["retrying", "unhandled", "waiting"]


@pytest.mark.parametrize("state", STUCK)
async def test_what_is_moved_to_the_front_passes_what_blocks_the_group(led: World, state: str) -> None:
    store = await led.worker()
    first, second, third = await sent(store, 3)
    await runs(store, first, STUCK[state])
    assert await store.move(third.id, None) is JobState.WAITING
    assert await states(led, [first, second, third]) == [state, "waiting", "queued"]
    await runs(store, third)
    # Those behind it wait for it as before.
    assert await states(led, [first, second]) == [state, "waiting"]
    assert (await led.the_row(first.id)).has_place


# -- move


async def test_a_job_moves_to_the_front_and_the_rest_keep_their_order(led: World) -> None:
    store = await led.worker()
    jobs = await sent(store, 4)
    assert await store.move(jobs[2].id, None) is JobState.WAITING
    assert await order_of(store) == ids_of([jobs[2], jobs[0], jobs[1], jobs[3]])
    assert await states(led, jobs) == ["waiting", "waiting", "queued", "waiting"]
    assert await store.move(jobs[3].id, None) is JobState.WAITING
    assert await order_of(store) == ids_of([jobs[3], jobs[2], jobs[0], jobs[1]])
    assert numbers(await store.take_unpublished(None, 10, LEASE)) == [(jobs[3].id, 2)]
    # Those that were published before others came first do not start.
    stale = [asks(jobs[0]), asks(jobs[2], dispatch=2)]
    assert verdicts([await store.claim(request) for request in stale]) == [Verdict.DROP_STALE] * 2
    for job in (jobs[3], jobs[2], jobs[0], jobs[1]):
        await runs(store, job)


async def test_the_head_moves_to_the_front_as_a_new_dispatch(led: World) -> None:
    store = await led.worker()
    first, second = await sent(store, 2)
    assert await store.move(first.id, None) is JobState.QUEUED
    assert await order_of(store) == ids_of([first, second])
    assert numbers(await store.take_unpublished(None, 10, LEASE)) == [(first.id, 2)]
    assert (await store.claim(asks(first))).verdict is Verdict.DROP_STALE
    await runs(store, first)


async def test_what_is_moved_to_the_front_waits_for_what_runs(led: World) -> None:
    store = await led.worker()
    first, second, third = await sent(store, 3)
    request = asks(first)
    answer = await store.claim(request)
    assert await store.move(third.id, None) is JobState.WAITING
    assert await states(led, [first, second, third]) == ["running", "waiting", "waiting"]
    await ends(store, request, answer)
    for job in (third, second):
        await runs(store, job)


async def test_in_a_paused_group_only_the_order_changes(led: World) -> None:
    store = await led.worker()
    first, second, third = await sent(store, 3)
    await runs(store, first, Failed(FAILURE))
    await store.pause_group("g", "ops")
    assert await store.move(third.id, None) is JobState.WAITING
    assert await store.retry(FAILED, [], 10) == [first.id]
    assert await states(led, [first, second, third]) == ["waiting"] * 3
    assert await store.take_unpublished(None, 10, LEASE) == []
    assert await store.resume_group("g") == 1
    assert await order_of(store) == ids_of([third, first, second])
    for job in (third, first, second):
        await runs(store, job)


async def test_a_job_moves_to_the_end_of_another_group_before_what_comes_later(led: World) -> None:
    store = await led.worker()
    first, second, third = await sent(store, 3)
    others = await sent(store, 2, "other")
    assert await store.move(second.id, "other") is JobState.WAITING
    assert await store.move(first.id, "other") is JobState.QUEUED
    others += [second, first, *await sent(store, 1, "other")]
    assert await order_of(store, "other") == ids_of(others)
    assert await order_of(store) == [third.id]
    assert await states(led, [third, *others]) == ["queued", "queued", *["waiting"] * 4]
    assert (await led.the_row(second.id)).group_key == "other"
    # Its message of before starts it neither here nor there.
    assert (await store.claim(asks(first))).verdict is Verdict.DROP_STALE
    assert await store.move(third.id, "new") is JobState.QUEUED
    assert await order_of(store, "new") == [third.id]
    for job in (third, *others):
        await runs(store, job)


async def test_when_the_head_moves_away_the_next_one_is_released(led: World) -> None:
    store = await led.worker()
    first, *behind = await sent(store, 3)
    await store.move(first.id, "other")
    assert await states(led, [first, *behind]) == ["queued", "queued", "waiting"]
    taken = numbers(await store.take_unpublished(None, 10, LEASE))
    assert sorted(taken) == sorted([(first.id, 2), (behind[0].id, 2)])


@pytest.mark.parametrize("state", ["scheduled", "retrying", "unhandled"])
async def test_what_is_neither_queued_nor_waiting_keeps_its_state(led: World, state: str) -> None:
    store = await led.worker()
    with_rule(store, concurrency=2)
    [first] = await sent(store, 1)
    [job] = await sent(store, 1, due_in=HOUR if state == "scheduled" else timedelta())
    if state != "scheduled":
        await runs(store, job, STUCK[state])
    assert await store.move(job.id, None) is JobState(state)
    row = await led.the_row(job.id)
    assert (row.state, row.dispatch, row.wake_at is None) == (state, 1, state == "unhandled")
    assert (row.order_key == NO_PLACE) is (state == "scheduled")
    assert row.has_place is (state != "scheduled")
    assert await order_of(store) == ids_of([first] if state == "scheduled" else [job, first])


async def test_what_cannot_be_moved(led: World) -> None:
    store = await led.worker()
    has_ended, active = await sent(store, 2)
    await runs(store, has_ended)
    await store.claim(asks(active, dispatch=2))
    [alone] = await sent(store, 1, None)
    [by_number] = await numbered(store, 1, group="counts")
    [plain] = await sent(store, 1, "plain")
    for job, group, why in [
        (active, None, "running"),
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
