"""Reading groups, on every database: pages, counts, reasons, and the place of a job."""

from __future__ import annotations

from datetime import timedelta

import pytest

from jq_actors.model.group import GroupState
from jq_actors.model.job import JobState, Place
from jq_actors.store.reading import group_reading
from jq_actors.store.reading.places import time_until
from jq_actors.store.sql import SqlStore

from .grouped import HOUR, MINUTE, ended, numbered, running, sent, the_group, with_rule
from .stores import World, clock, got

SECOND = timedelta(seconds=1)


async def names_of(store: SqlStore, limit: int, *states: GroupState) -> list[list[str]]:
    """The names of all pages."""
    pages: list[list[str]] = []
    after = None
    while True:
        page = await store.find_groups(frozenset(states), limit, after)
        pages.append([group.name for group in page.groups])
        after = page.cursor
        if after is None:
            return pages


async def test_nothing_is_known_of_a_group_that_never_was(db: World) -> None:
    store = await db.worker()
    assert await store.get_group("g") is None
    assert await store.first_of_group("g", 10) == []
    assert await names_of(store, 10) == [[]]


async def test_counts_head_and_lag(db: World) -> None:
    store = await db.worker()
    first, *waiting = await sent(store, 4)
    await sent(store, 2, due_in=HOUR)
    await ended(db, *await sent(store, 3))
    await running(db, first)
    await db.change(waiting[0].id, due_at=clock.wall() - MINUTE)
    group = await the_group(store)
    assert (group.state, group.reason) == (GroupState.RUNNING, None)
    assert (group.waiting, group.running, group.scheduled, group.head) == (3, 1, 2, first.id)
    assert group.lag is not None
    assert MINUTE <= group.lag < 2 * MINUTE
    assert group.oldest_due_at == (await got(store, waiting[0])).due_at
    assert (await store.find_groups(frozenset(), 10, None)).groups[0].head == first.id


async def test_pages_are_by_name_and_end(db: World) -> None:
    store = await db.worker()
    for name in ("b", "ä", "c", "a b", "a", "A"):
        await sent(store, 2, name)
    await store.pause_group("aa", "ops")
    await ended(db, *await sent(store, 1, "done"))
    [every] = await names_of(store, 7)
    assert set(every) == {"b", "ä", "c", "a b", "a", "A", "aa"}
    for limit in (1, 2, 3, 6):
        pages = await names_of(store, limit)
        assert [name for page in pages for name in page] == every
        assert {len(page) for page in pages[:-1]} <= {limit}


@pytest.mark.parametrize("cursor", ["", "nonsense", "c2VxOjU", "Z3JvdXA6", "🙂"])
async def test_foreign_cursor_is_refused(db: World, cursor: str) -> None:
    store = await db.worker()
    with pytest.raises(ValueError, match="not a cursor"):
        await store.find_groups(frozenset(), 10, cursor)


async def test_groups_are_found_by_what_they_do(db: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_reading, "CHUNK", 2)
    store = await db.worker()
    for name in "abcdefgh":
        [job] = await sent(store, 1, name)
        if name in "bf":
            await running(db, job)
        elif name in "cg":
            await db.change(job.id, state="retrying", due_at=clock.wall() + HOUR)
        elif name in "dh":
            await store.pause_group(name, "ops")
    await sent(store, 1, "later", due_in=HOUR)
    expected = {
        GroupState.QUEUED: ["a", "e"],
        GroupState.RUNNING: ["b", "f"],
        GroupState.BLOCKED: ["c", "g"],
        GroupState.PAUSED: ["d", "h"],
        GroupState.IDLE: ["later"],
    }
    for state, names in expected.items():
        assert await names_of(store, 10, state) == [names]
        assert await names_of(store, 1, state) == [[name] for name in names]
    assert await names_of(store, 9, GroupState.PAUSED, GroupState.RUNNING) == [["b", "d", "f", "h"]]


# -- why a group waits


async def test_reason_of_a_retrying_head(db: World) -> None:
    store = await db.worker()
    first, _ = await sent(store, 2)
    due_at = clock.wall() + HOUR
    await db.change(first.id, state="retrying", due_at=due_at)
    group = await the_group(store)
    assert group.state is GroupState.BLOCKED
    assert group.reason == f"blocked by job {first.id}, retrying until {due_at.isoformat(timespec='seconds')}"
    # Passed by those behind it, it holds no place.
    with_rule(store, overtake=True)
    await db.change(first.id, has_place=False)
    group = await the_group(store)
    assert (group.state, group.head) == (GroupState.QUEUED, first.id)


async def test_reason_of_a_head_that_no_worker_can_run(db: World) -> None:
    store = await db.worker()
    first, _ = await sent(store, 2)
    await db.change(first.id, state="unhandled", reason="no actor called 'send_mail'")
    group = await the_group(store)
    assert group.state is GroupState.BLOCKED
    assert group.reason == f"blocked by job {first.id}, which no worker can run: no actor called 'send_mail'"


async def test_reason_of_a_number_that_has_not_come(db: World) -> None:
    store = await db.worker()
    _, first = await numbered(store, 4, 1)
    assert (await the_group(store)).next_position == 1
    await ended(db, first)
    group = await the_group(store)
    assert (group.state, group.reason) == (GroupState.BLOCKED, "position 2 has not been sent")
    assert group.next_position == 2


async def test_paused_while_something_runs(db: World) -> None:
    store = await db.worker()
    first, _ = await sent(store, 2)
    await running(db, first)
    await store.pause_group("g", "ops: audit")
    group = await the_group(store)
    assert (group.state, group.reason, group.running) == (GroupState.PAUSED, "ops: audit", 1)


# -- the place of a job


async def test_place_in_a_group(db: World) -> None:
    store = await db.worker()
    first, second, third = await sent(store, 3)
    [scheduled] = await sent(store, 1, due_in=HOUR)
    [alone] = await sent(store, 1, None)
    assert [(await got(store, job)).place for job in (first, third)] == [Place(1, 3, None), Place(3, 3, None)]
    assert [(await got(store, job)).place for job in (scheduled, alone)] == [None, None]
    await store.move(third.id, None)
    await ended(db, first)
    assert (await got(store, first)).place is None
    found = await store.first_of_group("g", 10)
    assert [(job.id, job.place and (job.place.number, job.place.of)) for job in found] == [
        (third.id, (1, 2)),
        (second.id, (2, 2)),
    ]
    assert len(await store.first_of_group("g", 1)) == 1


@pytest.mark.parametrize("by_number", [False, True])
async def test_place_says_when_the_job_may_start(db: World, by_number: bool) -> None:
    store = await db.worker()
    jobs = await numbered(store, *range(8, 0, -1)) if by_number else await sent(store, 8)
    if by_number:
        jobs.reverse()
    await ended(db, *jobs[:2], took=8 * SECOND)
    await ended(db, *jobs[2:4], took=12 * SECOND, state="failed")
    await running(db, jobs[4], ago=4 * SECOND)
    seen = store.now()
    runs, fifth, last = [(await got(store, job)).place for job in (jobs[4], jobs[5], jobs[7])]
    row = await db.the_row(jobs[4].id)
    assert runs == Place(1, 4, row.started_at)
    for place, number, wait in ((fifth, 2, 6 * SECOND), (last, 4, 26 * SECOND)):
        assert place is not None
        assert place.starts_at is not None
        assert (place.number, place.of) == (number, 4)
        assert abs(place.starts_at - seen - wait) < 4 * SECOND
    await store.pause_group("g", "ops")
    assert (await got(store, jobs[5])).place == Place(2, 4, None)
    await store.resume_group("g")
    await db.change(jobs[4].id, state=JobState.UNHANDLED.value)
    assert (await got(store, jobs[5])).place == Place(2, 4, None)


@pytest.mark.parametrize(
    ("ahead", "running_for", "concurrency", "wait"),
    [
        (0, [], 1, 0),
        (3, [], 1, 30),
        (0, [4], 1, 6),
        (2, [4], 1, 26),
        (0, [99], 1, 0),
        (1, [4], 3, 0),
        (2, [4], 2, 13),
        (3, [5, 7], 2, 19),
    ],
)
def test_time_until_a_job_can_start(ahead: int, running_for: list[int], concurrency: int, wait: int) -> None:
    lengths = [seconds * SECOND for seconds in running_for]
    assert time_until(ahead, lengths, 10 * SECOND, concurrency) == wait * SECOND
