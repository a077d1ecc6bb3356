"""What groups take in: numbers, each once and for ever, and as many jobs as may wait."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from jq_actors.errors import GroupFullError, PositionTakenError
from jq_actors.job import JobState
from jq_actors.outcome import Failure, Retrying, Unhandled
from jq_actors.store.records import NewJob, Retention
from jq_actors.store.sql import SqlStore
from tests.support.clock import FakeClock

from .grouped import HOUR, numbered, sent, states, the_group, with_rule
from .stores import LEASE, World, another_me, job_ids, new_job, world_on
from .turns import asks, runs

FAILURE = Failure(None, "ValueError: no")


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ((2,), "Position 2 of group 'g' is used already"),
        ((1,), "Position 1 of group 'g' is used already"),
        ((5, 5), "Position 5 of group 'g' is used already"),
        ((0,), "Position 0 of group 'g': numbers begin with 1"),
        ((-3,), "Position -3 of group 'g': numbers begin with 1"),
        ((None,), "Group 'g' is numbered: each of its jobs needs a position"),
        ((5, None), "Group 'g' is numbered: each of its jobs needs a position"),
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


async def test_refused_sending_gets_no_place(led: World) -> None:
    store = await led.worker()
    with_rule(store, max_size=1)
    two, one = [new_job(job_id, group="g") for job_id in job_ids(2)], new_job(group="g")
    answers = await asyncio.gather(
        *(store.insert(batch, publish_lease=HOUR) for batch in ([new_job()], two, [one])), return_exceptions=True
    )
    assert isinstance(answers[1], GroupFullError)
    assert await states(led, [one]) == ["queued"]


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


@pytest.mark.parametrize("outcome", [Retrying(FAILURE, HOUR), Unhandled("no actor")], ids=repr)
async def test_job_that_blocks_its_group_takes_room(led: World, outcome: Retrying | Unhandled) -> None:
    store = await led.worker()
    with_rule(store, max_size=2)
    first, _ = await sent(store, 2)
    await runs(store, first, outcome)
    with pytest.raises(GroupFullError):
        await sent(store)


async def test_row_of_a_number_that_others_may_still_come_before_stays(led: World) -> None:
    """Nothing else says that it is used."""
    store = await led.worker()
    jobs = await numbered(store, 1, 3)
    assert await store.cancel_group("g", "no more") == 2
    assert await store.prune(Retention(cancelled=timedelta()), 10) == 1
    assert [await led.row(job.id) is None for job in jobs] == [True, False]
    for past in (1, 3):
        with pytest.raises(PositionTakenError):
            await numbered(store, past)
    four, two = await numbered(store, 4, 2)
    await runs(store, two)
    assert await states(led, [four]) == ["queued"], "the third is not waited for"
    assert await store.prune(Retention(succeeded=timedelta(), cancelled=timedelta()), 10) == 2


async def test_numbered_group_goes_on_with_its_number_however_long_it_was_idle(sqlite_url: str) -> None:
    time = FakeClock()
    async with world_on(sqlite_url) as world:
        store = world.store(clock=time)
        await store.open()
        await store.register(another_me(), ["mail"], LEASE)
        for position in (1, 2, 3):
            await runs(store, (await numbered_now(time, store, position)))
        time.jump(timedelta(days=400))
        await store.heartbeat({})
        assert await store.prune(Retention(), 500) == 3
        await store.mend_groups(store.now(), 500)
        assert (await the_group(store)).next_position == 4
        with pytest.raises(PositionTakenError, match="Position 3 of group 'g' is past: it goes on with 4"):
            await numbered_now(time, store, 3)
        await runs(store, await numbered_now(time, store, 4))


async def numbered_now(time: FakeClock, store: SqlStore, position: int) -> NewJob:
    now = time.wall()
    job = replace(new_job(group="g"), position=position, due_at=now, enqueued_at=now)
    await store.insert([job], publish_lease=HOUR)
    return job
