"""What groups take in: numbers, and as many as may wait."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from jq_actors.errors import GroupFullError, PositionTakenError
from jq_actors.model.job import JobState
from jq_actors.store.records import Retention
from jq_actors.store.sql import SqlStore

from .grouped import HOUR, numbered, sent, states, with_rule
from .stores import World, clock, job_ids, new_job
from .turns import asks, runs


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ((2,), "Position 2 of group 'g' is used already"),
        ((1,), "Position 1 of group 'g' is used already"),
        ((5, 5), "Position 5 of group 'g' is used already"),
        ((0,), "Position 0 of group 'g': numbers begin with 1"),
        ((-3,), "Position -3 of group 'g': numbers begin with 1"),
        ((None,), "Group 'g' is numbered: its jobs need positions"),
        ((5, None), "Group 'g' is numbered: its jobs need positions"),
    ],
)
async def test_number_that_cannot_be_given_is_refused(
    led: World, positions: tuple[int | None, ...], message: str
) -> None:
    store = await led.worker()
    [first, _] = await numbered(store, 1, 2)
    await runs(store, first)
    jobs = [replace(new_job(i, group="g"), position=n) for i, n in zip(job_ids(2), positions, strict=False)]
    with pytest.raises(PositionTakenError, match=message) as raised:
        await store.insert([*jobs, new_job()], publish_lease=None)
    assert raised.value.job_ids[: len(jobs)] == tuple(job.id for job in jobs)
    assert await store.count_by_state() == {JobState.SUCCEEDED: 1, JobState.QUEUED: 1}


async def test_number_is_past_when_the_group_has_gone_on_and_nothing_is_left_of_it(led: World) -> None:
    store = await led.worker()
    one, two, four = await numbered(store, 1, 2, 4)
    for job in (one, two):
        await runs(store, job)
    await store.prune(Retention(succeeded=timedelta()), 10)
    assert [await led.row(job.id) is None for job in (one, two, four)] == [True, True, False]
    with pytest.raises(PositionTakenError, match="Position 2 of group 'g' is past: it goes on with 3"):
        await numbered(store, 2)
    [three] = await numbered(store, 3)
    for job in (three, four):
        await runs(store, job)


@pytest.mark.parametrize("ended", [True, False])
async def test_group_whose_jobs_have_no_numbers_takes_none(led: World, ended: bool) -> None:
    store = await led.worker()
    [job] = await sent(store)
    if ended:
        await runs(store, job)
    with pytest.raises(PositionTakenError, match="Position 1 of group 'g': the group is not numbered"):
        await numbered(store, 1)


async def test_refused_sending_does_not_fail_those_that_share_its_commit(led: World) -> None:
    store = await led.worker()
    with_rule(store, max_size=2)
    jobs = [new_job(job_id, group="g") for job_id in job_ids(4)]
    alone = new_job()
    # The first of them goes alone; the others share a commit.
    answers = await asyncio.gather(
        *(store.insert(batch, publish_lease=None) for batch in ([alone], jobs[:1], jobs[1:3], jobs[3:])),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers] == [list, list, GroupFullError, list]
    assert {job.id for job in (alone, jobs[0], jobs[3])} == {
        row.id for row in await led.execute(led.tables.jobs.select())
    }


async def test_full_group_says_so(led: World) -> None:
    store = await led.worker()
    with_rule(store, max_size=3)
    jobs = await sent(store, 3)
    with pytest.raises(GroupFullError, match=r"Group 'g' has 3 waiting job\(s\), its rule allows 3 .*room for 2 more"):
        await sent(store, 2)
    await store.claim(asks(jobs[0]))  # what runs does not wait, nor does what is scheduled
    await sent(store, due_in=HOUR)
    await sent(store)
    with pytest.raises(GroupFullError):
        await sent(store)
    await sent(store, 5, group=None)


async def test_places_of_a_numbered_group_go_by_its_numbers(led: World) -> None:
    store = await led.worker()
    with_rule(store, concurrency=2)
    four, three, two, one = await numbered(store, 4, 3, 2, 1)
    assert await states(led, [one, two, three, four]) == ["queued", "queued", "waiting", "waiting"]
    await runs(store, two)
    assert await states(led, [one, three, four]) == ["queued", "queued", "waiting"]
    for job in (one, four, three):
        await runs(store, job)


async def test_row_of_a_used_number_stays_until_the_group_has_gone_on(led: World) -> None:
    store = await led.worker()
    one, four = await numbered(store, 1, 4)
    await runs(store, one)
    await store.cancel_group("g", "no longer needed")
    await store.prune(Retention(succeeded=timedelta(), cancelled=timedelta()), 10)
    assert [await led.row(job.id) is None for job in (one, four)] == [True, False]
    with pytest.raises(PositionTakenError, match="Position 4 of group 'g' is used already"):
        await numbered(store, 4)
    for job in await numbered(store, 2, 3):
        await runs(store, job)
    await store.prune(Retention(cancelled=timedelta()), 10)
    assert await led.row(four.id) is None
    with pytest.raises(PositionTakenError, match="Position 4 of group 'g' is past: it goes on with 5"):
        await numbered(store, 4)


async def _pruned(db: World, store: SqlStore, later: timedelta) -> None:
    await db.execute(db.tables.groups.update().values(moved_at=clock.wall() - later))
    await store.prune(Retention(succeeded=None), 10)


async def _names(db: World) -> list[str]:
    return sorted(row.name for row in await db.execute(db.tables.groups.select()))
