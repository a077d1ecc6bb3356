"""Parked jobs of groups, on every database: released in order when those before them have ended, and not before."""

from __future__ import annotations

from datetime import timedelta

import pytest

from jq_actors.events import GroupPaused, JobsReleased
from jq_actors.groups import OnGap
from jq_actors.job import JobState
from jq_actors.outcome import Failure, Retrying, Succeeded
from jq_actors.store.records import NewJob

from .grouped import HOUR, MINUTE, ended, ids_of, numbered, parked, running, sent, states, the_group, with_rule
from .stores import LEASE, World, clock, got, granted, settled


async def test_parked_jobs_are_queued_as_new_dispatches_in_order_when_the_head_has_ended(db: World) -> None:
    store = await db.worker()
    first, *behind = await sent(store, 4)
    await parked(db, behind)
    await running(db, first)
    assert await store.release_waiting(100) == 0
    await ended(db, first)
    assert await store.release_waiting(100) == 3
    assert await store.release_waiting(100) == 0
    taken = await store.take_unpublished(None, 10, LEASE)
    assert [(d.job_id, d.dispatch) for d in taken] == [(job.id, 2) for job in behind]
    row = await db.the_row(behind[0].id)
    assert (row.state, row.parked_at, row.reason, row.published_at) == ("queued", None, None, None)


async def test_a_settlement_releases_those_behind_it(db: World) -> None:
    store = await db.worker()
    events = db.record(JobsReleased)
    first, *behind = await sent(store, 3)
    token = await granted(store, first)
    await parked(db, behind)
    assert await settled(store, first, token, Retrying(Failure(None, "no"), HOUR))
    assert await states(db, behind) == ["waiting"] * 2
    await db.change(first.id, due_at=clock.wall())
    assert await settled(store, first, await granted(store, first), Succeeded())
    assert await states(db, behind) == ["queued"] * 2
    assert events.of(JobsReleased) == [JobsReleased(2)]


@pytest.mark.parametrize("head", ["queued", "retrying", "unhandled"])
async def test_jobs_behind_a_head_that_is_not_parked_stay_parked(db: World, head: str) -> None:
    store = await db.worker()
    first, *behind = await sent(store, 3)
    await parked(db, behind)
    await db.change(first.id, state=head, due_at=clock.wall() + HOUR)
    assert await store.release_waiting(100) == 0
    assert await states(db, behind) == ["waiting"] * 2


async def test_only_the_first_consecutive_ones_are_released(db: World) -> None:
    store = await db.worker()
    first, second, queued, fourth = await sent(store, 4)
    await parked(db, [first, second, fourth])
    assert await store.release_waiting(100) == 2
    assert await states(db, [first, second, queued, fourth]) == ["queued", "queued", "queued", "waiting"]


async def test_a_window_limits_what_is_released_at_once(db: World) -> None:
    store = await db.worker()
    jobs = await sent(store, 5)
    await parked(db, jobs)
    store.group_window = 2
    with_rule(store, concurrency=2)
    assert await store.release_waiting(100) == 2
    assert await states(db, jobs) == ["queued"] * 2 + ["waiting"] * 3


async def test_paused_groups_release_nothing_until_they_are_resumed(db: World) -> None:
    store = await db.worker()
    jobs = await sent(store, 2)
    await parked(db, jobs)
    assert await store.pause_group("g", "ops")
    assert await store.release_waiting(100) == 0
    assert await store.resume_group("g") == ["mail"]
    assert await states(db, jobs) == ["queued"] * 2


async def test_where_several_may_run_one_that_is_parked_behind_a_run_is_released(db: World) -> None:
    store = await db.worker()
    with_rule(store, concurrency=2)
    first, *behind = await sent(store, 3)
    await running(db, first)
    await parked(db, behind)
    assert await store.release_waiting(100) == 2


async def test_where_retrying_jobs_may_be_passed_those_behind_one_are_released(db: World) -> None:
    store = await db.worker()
    with_rule(store, overtake=True)
    first, second = await sent(store, 2)
    await db.change(first.id, state="retrying", due_at=clock.wall() + HOUR, publish_at=None)
    await parked(db, [second])
    assert await store.release_waiting(100) == 1


async def test_a_look_goes_on_where_the_one_before_ended(db: World) -> None:
    store = await db.worker()
    jobs = [(await sent(store, 1, f"group-{number}"))[0] for number in range(7)]
    await parked(db, jobs)
    blocked = [await sent(store, 2, f"a-{number}") for number in range(3)]
    await parked(db, [second for _, second in blocked])
    assert [await store.release_waiting(3) for _ in range(5)] == [0, 3, 3, 1, 0]
    assert await states(db, jobs) == ["queued"] * 7


# -- numbered groups


async def test_no_job_is_released_before_a_number_that_is_missing(db: World) -> None:
    store = await db.worker()
    third, first, fourth, sixth = await numbered(store, 3, 1, 4, 6)
    await parked(db, [third, fourth, sixth])
    await ended(db, first)
    assert await store.release_waiting(100) == 0
    [second] = await numbered(store, 2)
    await ended(db, second)
    assert await store.release_waiting(100) == 2
    assert await states(db, [third, fourth, sixth]) == ["queued", "queued", "waiting"]


async def test_a_gap_that_lasted_too_long_is_passed(db: World) -> None:
    store = await db.worker()
    with_rule(store, gap_timeout=MINUTE)
    first, third, fourth = await numbered(store, 1, 3, 4)
    await ended(db, first)
    await db.change(first.id, finished_at=clock.wall() - HOUR)
    await parked(db, [third, fourth], ago=timedelta(seconds=50))
    assert await store.release_waiting(100) == 0
    await parked(db, [third], ago=timedelta(seconds=70))
    assert await store.release_waiting(100) == 2
    assert (await the_group(store)).next_position in (3, 5)
    assert await states(db, [third, fourth]) == ["queued"] * 2


async def test_a_gap_counts_from_when_the_number_before_it_has_ended(db: World) -> None:
    store = await db.worker()
    with_rule(store, gap_timeout=MINUTE)
    first, third = await numbered(store, 1, 3)
    await parked(db, [third], ago=HOUR)
    await ended(db, first)
    assert await store.release_waiting(100) == 0
    await db.change(first.id, finished_at=clock.wall() - 2 * MINUTE)
    assert await store.release_waiting(100) == 1


async def test_a_gap_may_pause_the_group_instead(db: World) -> None:
    store = await db.worker()
    with_rule(store, gap_timeout=MINUTE, on_gap=OnGap.PAUSE)
    events = db.record(GroupPaused)
    first, third = await numbered(store, 1, 3)
    await ended(db, first)
    await db.change(first.id, finished_at=clock.wall() - HOUR)
    await parked(db, [third], ago=HOUR)
    assert await store.release_waiting(100) == 0
    group = await the_group(store)
    assert (group.state, group.reason) == ("paused", "position 2 did not come within 1m")
    assert events.of(GroupPaused) == [GroupPaused("g", "position 2 did not come within 1m")]
    assert await store.release_waiting(100) == 0
    assert len(events.of(GroupPaused)) == 1


async def test_without_a_timeout_a_gap_is_for_ever(db: World) -> None:
    store = await db.worker()
    [third] = await numbered(store, 3)
    await parked(db, [third], ago=1000 * HOUR)
    assert await store.release_waiting(100) == 0
    assert (await got(store, third)).state is JobState.WAITING


async def test_release_in_a_transaction_of_somebody_else(db: World) -> None:
    """A settlement does so."""
    store = await db.worker()
    jobs: list[NewJob] = [job for group in ("a", "b", "c") for job in await sent(store, 2, group)]
    await parked(db, jobs)
    await store.pause_group("b", "ops")
    releases = store._sweep._releases
    count = await store._db.write(lambda c: releases.release(c, ["a", "b", "none"], store.now()))
    assert count == 2
    assert ids_of(await store.take_unpublished(None, 10, LEASE)) == ids_of(jobs[:2])
