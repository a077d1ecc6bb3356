"""Groups that stand still, on every database: found once in a while, and what their lanes lost is published again."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from jq_actors.store import still_queries
from jq_actors.store.records import StillGroup

from .grouped import (
    HOUR,
    MINUTE,
    ids_of,
    moved_at,
    numbered,
    numbers,
    parked,
    published,
    running,
    sent,
    still_since,
    the_group,
    with_rule,
)
from .stores import LEASE, World, clock, job_ids, new_job


async def test_a_group_whose_published_head_does_not_move_is_found_once_in_a_while(db: World) -> None:
    store = await db.worker()
    await published(db, await sent(store, 2))
    before = clock.wall() - MINUTE
    assert await store.still_groups(before, 10) == []
    await still_since(db, HOUR, "g")
    assert await store.still_groups(before, 10) == [StillGroup("g", "mail")]
    assert await store.still_groups(before, 10) == []
    assert await store.still_groups(clock.wall() + MINUTE, 10) == [StillGroup("g", "mail")]


@pytest.mark.parametrize("why", ["unpublished", "running", "parked", "paused", "retrying", "unhandled", "scheduled"])
async def test_a_group_that_cannot_start_anything_is_not_found(db: World, why: str) -> None:
    store = await db.worker()
    if why == "scheduled":
        await sent(store, 1, due_in=HOUR)
    jobs = await sent(store, 2) if why != "scheduled" else []
    await published(db, jobs)
    match why:
        case "unpublished":
            await db.change(jobs[0].id, publish_at=clock.wall())
        case "running":
            await running(db, jobs[0])
        case "parked":
            await parked(db, jobs[:1])
            await published(db, jobs[1:])
        case "paused":
            await store.pause_group("g", "ops")
        case "retrying" | "unhandled":
            await db.change(jobs[0].id, state=why, due_at=clock.wall() + HOUR)
    await still_since(db, HOUR, "g")
    assert await store.still_groups(clock.wall() - MINUTE, 10) == []


async def test_groups_are_found_longest_still_first_up_to_a_limit(db: World) -> None:
    store = await db.worker()
    for number in range(5):
        await published(db, await sent(store, 1, f"g{number}"))
        await still_since(db, HOUR + number * MINUTE, f"g{number}")
    before = clock.wall() - MINUTE
    looks = [[still.group for still in await store.still_groups(before, 2)] for _ in range(4)]
    assert [sorted(look) for look in looks] == [["g3", "g4"], ["g1", "g2"], ["g0"], []]


async def test_groups_that_need_nothing_do_not_hide_those_that_do(db: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(still_queries, "ROUND", 2)
    store = await db.worker()
    for number in range(7):
        await sent(store, 1, f"g{number}")
        await still_since(db, HOUR, f"g{number}")
    await published(db, await sent(store, 1, "last"))
    await still_since(db, MINUTE, "last")
    assert await store.still_groups(clock.wall() - MINUTE / 2, 4) == [StillGroup("last", "mail")]


async def test_each_queue_in_which_something_could_start_is_named(db: World) -> None:
    store = await db.worker()
    with_rule(store, concurrency=2)
    jobs = [*await sent(store, 1), *await sent(store, 1, queue="heavy"), *await sent(store, 1, queue="third")]
    await published(db, jobs)
    await still_since(db, HOUR, "g")
    found = await store.still_groups(clock.wall() - MINUTE, 10)
    assert set(found) == {StillGroup("g", "mail"), StillGroup("g", "heavy")}


async def test_groups_of_which_nothing_is_left_are_forgotten(db: World) -> None:
    store = await db.worker()
    [_], [_], [kept] = (
        await sent(store, 1, "gone"),
        await numbered(store, 1, group="counts"),
        await sent(store, 1, "kept"),
    )
    await store.pause_group("paused", "ops")
    jobs = db.tables.jobs
    await db.execute(jobs.update().where(jobs.c.id != kept.id).values(state="succeeded", final_state="succeeded"))
    await still_since(db, HOUR, "gone", "counts", "kept", "paused")
    assert await store.still_groups(clock.wall() - MINUTE, 10) == []
    there = [name for name in ("gone", "counts", "kept", "paused") if await moved_at(db, name) is not None]
    assert there == ["counts", "kept", "paused"]
    # Its jobs are still to be seen.
    assert (await the_group(store, "gone")).state == "idle"
    moved = await moved_at(db, "counts")
    assert moved is not None
    assert moved < clock.wall() - MINUTE  # so that retention sees how old it is


async def test_racing_looks_find_each_group_once(db: World) -> None:
    stores = [await db.worker() for _ in range(3)]
    names = [f"g{number}" for number in range(60)]
    for name in names:
        await published(db, await sent(stores[0], 1, name))
    await still_since(db, HOUR, *names)
    before = clock.wall() - MINUTE
    found: list[str] = []
    while len(found) < len(names):
        for look in await asyncio.gather(*(store.still_groups(before, 7) for store in stores)):
            found += [still.group for still in look]
    assert sorted(found) == sorted(names)


# -- what the broker has lost


async def test_lost_rows_are_leased_in_the_order_of_their_group_as_the_same_dispatch(db: World) -> None:
    store, other = await db.worker(), await db.worker()
    first, second, third = await sent(store, 3)
    [elsewhere] = await sent(store, 1, queue="heavy")
    [other_group] = await sent(store, 1, "other")
    await published(db, [first, second, third, elsewhere, other_group], ago=HOUR)
    await store.move(third.id, None)
    await published(db, [third])
    await db.change(second.id, state="running")
    taken = await store.take_lost([StillGroup("g", "mail")], 10, LEASE)
    assert numbers(taken) == [(third.id, 2), (first.id, 1)]
    assert [(d.queue, d.group) for d in taken] == [("mail", "g")] * 2
    assert (await db.the_row(first.id)).redispatches == 1
    assert await other.take_lost([StillGroup("g", "mail")], 10, LEASE) == []
    await store.mark_published([(third.id, 2), (first.id, 1)])
    assert ids_of(await other.take_lost([StillGroup("g", "mail"), StillGroup("other", "mail")], 10, LEASE)) == ids_of(
        [third, first, other_group]
    )


async def test_more_lost_rows_than_one_look_takes_are_left_to_any_relay(db: World) -> None:
    store = await db.worker()
    jobs = [new_job(job_id, group="g") for job_id in job_ids(7)]
    await store.insert(jobs, publish_lease=None)
    await published(db, jobs, ago=HOUR)
    assert ids_of(await store.take_lost([StillGroup("g", "mail")], 3, LEASE)) == ids_of(jobs[:3])
    assert ids_of(await store.take_unpublished(None, 10, LEASE)) == ids_of(jobs[3:])


async def test_what_is_not_published_or_parked_is_not_lost(db: World) -> None:
    store = await db.worker()
    leased, waiting = await sent(store, 2)
    await parked(db, [waiting])
    assert await store.take_lost([StillGroup("g", "mail")], 10, timedelta(minutes=1)) == []
    assert (await db.the_row(leased.id)).redispatches == 0
