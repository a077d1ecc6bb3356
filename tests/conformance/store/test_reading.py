"""Reading and pruning, on every database: pages that stay as they were, rows that cannot be decoded, retention."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
import sqlalchemy as sa

from jq_actors.model.job import JobId, JobState
from jq_actors.model.outcome import Cancelled, Failed, Failure, Outcome, Retrying, Succeeded
from jq_actors.store.records import JobFilter, NewJob, Retention
from jq_actors.store.sql import SqlStore

from .stores import World, clock, granted, job_ids, new_job, queued, settled

HOUR = timedelta(hours=1)
FOR_EVER = Retention(None, None, None, None)


async def pages_of(store: SqlStore, where: JobFilter, limit: int) -> list[list[JobId]]:
    """The ids of all pages."""
    pages, after = [], None
    while True:
        page = await store.find(where, limit, after)
        pages.append([job.id for job in page.jobs])
        after = page.cursor
        if after is None:
            return pages


async def found(store: SqlStore, **where: object) -> list[JobId]:
    return (await pages_of(store, JobFilter(**where), 1000))[0]  # type: ignore[arg-type]  # by the name of the field


async def test_unknown_and_impossible_ids_are_nothing(db: World) -> None:
    store = await db.worker()
    assert await store.get(job_ids(1)[0]) is None
    assert await store.get(JobId("no uuid")) is None


async def test_pages_are_newest_first_and_end(db: World) -> None:
    store = await db.worker()
    jobs = await queued(store, 7)
    newest_first = [job.id for job in reversed(jobs)]
    assert await pages_of(store, JobFilter(), 3) == [newest_first[:3], newest_first[3:6], newest_first[6:]]
    assert await pages_of(store, JobFilter(), 7) == [newest_first]
    assert await pages_of(store, JobFilter(actor="nobody"), 3) == [[]]


async def test_pages_stay_as_they_were_while_rows_are_inserted(db: World) -> None:
    store = await db.worker()
    jobs = await queued(store, 60)
    stop = asyncio.Event()

    async def insert_on() -> None:
        while not stop.is_set():
            await queued(store, 3)

    inserting = asyncio.ensure_future(insert_on())
    first = await store.find(JobFilter(), 1000, None)
    start = next(index for index, job in enumerate(first.jobs) if job.id == jobs[-1].id)
    page = await store.find(JobFilter(), start + 10, None)
    seen: list[JobId] = [job.id for job in page.jobs]
    while page.cursor is not None:
        page = await store.find(JobFilter(), 10, page.cursor)
        seen += [job.id for job in page.jobs]
        await asyncio.sleep(0)
    stop.set()
    await inserting
    assert len(seen) == len(set(seen))
    assert [job_id for job_id in seen if job_id in {job.id for job in jobs}] == [job.id for job in reversed(jobs)]


@pytest.mark.parametrize(
    "cursor", ["", "nonsense", "c2VxOng", "c2VxOi01", "aWQ6NQ", "🙂", "c2VxOjk5OTk5OTk5OTk5OTk5OTk5OTk5"]
)
async def test_foreign_cursor_is_refused(db: World, cursor: str) -> None:
    store = await db.worker()
    with pytest.raises(ValueError, match="not a cursor"):
        await store.find(JobFilter(), 10, cursor)


async def test_each_field_restricts(db: World) -> None:
    store = await db.worker()
    jobs = [
        new_job(actor="a", queue="x", group="g", tags=("t", "u")),
        new_job(actor="a", queue="y", group="h", tags=("t",)),
        new_job(actor="b", queue="x", tags=("it's", 'a "quoted" one')),
    ]
    await store.insert(jobs, publish_lease=HOUR)
    first, second, third = (job.id for job in jobs)
    assert await found(store, actor="a") == [second, first]
    assert await found(store, queue="x") == [third, first]
    assert await found(store, group="h") == [second]
    assert await found(store, tags=("t",)) == [second, first]
    assert await found(store, tags=("u", "t")) == [first]
    assert await found(store, tags=("it's", 'a "quoted" one')) == [third]
    assert await found(store, tags=("t", "none")) == []
    assert await found(store, actor="a", queue="x", group="g", tags=("t",)) == [first]
    assert await found(store, actor="b", group="g") == []


async def test_states_are_found_together_in_one_order(db: World) -> None:
    store = await db.worker()
    jobs = await queued(store, 12)
    outcomes: list[Outcome] = [
        Succeeded(),
        Failed(Failure(None, "no")),
        Cancelled("x"),
        Retrying(Failure(None, "no"), HOUR),
    ]
    for job, outcome in zip(jobs, outcomes * 2, strict=False):
        assert await settled(store, job, await granted(store, job), outcome)
    await granted(store, jobs[8])
    by_state: dict[JobState, list[JobId]] = {}
    for shown in reversed((await store.find(JobFilter(), 100, None)).jobs):
        by_state.setdefault(shown.state, []).insert(0, shown.id)

    assert {state: len(ids) for state, ids in by_state.items()} == {
        JobState.SUCCEEDED: 2,
        JobState.FAILED: 2,
        JobState.CANCELLED: 2,
        JobState.RETRYING: 2,
        JobState.RUNNING: 1,
        JobState.QUEUED: 3,
    }
    for state in JobState:
        assert await found(store, states=frozenset({state})) == by_state.get(state, [])
    wanted = frozenset({JobState.FAILED, JobState.CANCELLED, JobState.RUNNING, JobState.QUEUED})
    order = [job.id for job in reversed(jobs)]
    expected = [job_id for job_id in order if any(job_id in by_state[state] for state in wanted)]
    assert await pages_of(store, JobFilter(states=wanted), 3) == [expected[:3], expected[3:6], expected[6:]]
    assert {job.state for job in (await store.find(JobFilter(states=wanted), 9, None)).jobs} == wanted


@pytest.mark.parametrize("body", ["", "no json", "[1]", '{"args": 5, "kwargs": {}}', '{"args": []}', "[" * 100_000])
async def test_row_that_cannot_be_decoded_breaks_no_page(db: World, body: str) -> None:
    store = await db.worker()
    before, broken, after = await queued(store, 3)
    payloads = db.tables.payloads
    await db.execute(sa.update(payloads).where(payloads.c.job_id == broken.id).values(body=body, result="{"))
    page = await store.find(JobFilter(), 10, None)
    assert [job.id for job in page.jobs] == [after.id, broken.id, before.id]
    assert [bool(job.args) for job in page.jobs] == [True, False, True]
    shown = await store.get(broken.id)
    assert shown is not None
    assert (shown.args, shown.kwargs, shown.result) == ((), {}, None)
    assert shown.reason is not None
    assert "arguments cannot be read" in shown.reason
    assert "result cannot be read" in shown.reason


async def test_row_without_payload_breaks_no_page(db: World) -> None:
    store = await db.worker()
    [job] = await queued(store)
    await db.execute(sa.delete(db.tables.payloads))
    [shown] = (await store.find(JobFilter(), 10, None)).jobs
    assert (shown.id, shown.args) == (job.id, ())
    assert shown.reason is not None


# -- retention


async def ended(db: World, store: SqlStore, state: JobState, ago: timedelta, count: int = 1) -> list[NewJob]:
    jobs = await queued(store, count)
    for job in jobs:
        assert await settled(store, job, await granted(store, job), Succeeded())
    table = db.tables.jobs
    values = {"state": state.value, "final_state": state.value, "finished_at": clock.wall() - ago}
    await db.execute(sa.update(table).where(table.c.id.in_([job.id for job in jobs])).values(**values))
    return jobs


async def test_each_final_state_has_its_own_retention(db: World) -> None:
    store = await db.worker()
    retention = Retention(succeeded=HOUR, failed=3 * HOUR, cancelled=None, superseded=timedelta())
    kept = [
        *await ended(db, store, JobState.SUCCEEDED, timedelta(minutes=59)),
        *await ended(db, store, JobState.FAILED, 2 * HOUR),
        *await ended(db, store, JobState.CANCELLED, 999 * HOUR),
        *await queued(store),
    ]
    await ended(db, store, JobState.SUCCEEDED, timedelta(minutes=61))
    await ended(db, store, JobState.FAILED, 4 * HOUR)
    await ended(db, store, JobState.SUPERSEDED, timedelta(seconds=1))

    assert await store.prune(FOR_EVER, 100) == 0
    assert await store.prune(retention, 100) == 3
    assert await store.prune(retention, 100) == 0

    assert set(await found(store)) == {job.id for job in kept}
    payloads = await db.execute(sa.select(db.tables.payloads.c.job_id))
    assert {row.job_id for row in payloads} == {job.id for job in kept}
    attempts = await db.execute(sa.select(db.tables.attempts.c.job_id))
    assert {row.job_id for row in attempts} == {job.id for job in kept[:3]}


async def test_pruning_stops_at_its_limit_and_goes_on_oldest_first(db: World) -> None:
    store = await db.worker()
    old = await ended(db, store, JobState.SUCCEEDED, 9 * HOUR, count=4)
    new = await ended(db, store, JobState.SUCCEEDED, 8 * HOUR, count=4)
    retention = Retention(succeeded=HOUR)
    assert await store.prune(retention, 4) == 4
    assert set(await found(store)) == {job.id for job in new}
    assert old
    assert await store.prune(retention, 100) == 4


async def test_racing_pruners_delete_each_row_once(db: World) -> None:
    stores = [await db.worker() for _ in range(3)]
    jobs = await queued(stores[0], 1500)
    values = {"state": "succeeded", "final_state": "succeeded", "finished_at": clock.wall() - 9 * HOUR}
    await db.execute(sa.update(db.tables.jobs).values(**values))
    pruned = 0
    while sum(counts := await asyncio.gather(*(store.prune(Retention(), 100) for store in stores))):
        pruned += sum(counts)
    assert pruned == 0  # retention of a day
    while sum(counts := await asyncio.gather(*(store.prune(Retention(HOUR), 200) for store in stores))):
        pruned += sum(counts)
    assert pruned == len(jobs)


async def test_counts_by_state(db: World) -> None:
    store = await db.worker()
    assert await store.count_by_state() == {}
    await queued(store, 3)
    await ended(db, store, JobState.FAILED, HOUR, count=2)
    assert await store.count_by_state() == {JobState.QUEUED: 3, JobState.FAILED: 2}
