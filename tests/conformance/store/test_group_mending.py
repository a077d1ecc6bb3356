"""Groups that stand still: forgotten when nothing of them is left, counted anew when somebody changed their rows."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from jq_actors.events import GroupsMended
from jq_actors.model.group import GroupState
from jq_actors.model.outcome import Failure, Retrying, Unhandled
from jq_actors.store.sql import SqlStore

from .grouped import (
    HOUR,
    MINUTE,
    ids_of,
    is_counted,
    moved_at,
    numbered,
    sent,
    states,
    still_since,
    the_group,
    with_rule,
)
from .places import wrong_in
from .stores import World, clock
from .turns import asks, ends, runs

FAILURE = Failure(None, "ValueError: no")


async def looked(db: World, store: SqlStore, *names: str) -> list[str]:
    """A look at groups that have not moved for a while; the first of those mended, for each time that it is told."""
    mended = db.record(GroupsMended)
    await still_since(db, HOUR, *(names or ("g",)))
    await store.mend_groups(clock.wall() - MINUTE, 100)
    assert await wrong_in(db) == []
    return [event.first for event in mended.of(GroupsMended)]


async def set_group(db: World, **values: Any) -> None:
    """Change the row of the group by hand."""
    name, groups = "g", db.tables.groups
    await db.execute(sa.update(groups).where(groups.c.name == name).values(**values))


# -- nothing is wrong


@pytest.mark.parametrize(
    "why", ["queued", "running", "paused", "retrying", "unhandled", "overtaken", "scheduled", "gap", "two places"]
)
async def test_group_that_stands_still_rightly_is_left_alone(db: World, why: str) -> None:
    store = await db.worker()
    with_rule(store, overtake=why == "overtaken", concurrency=2 if why == "two places" else 1)
    if why == "gap":
        first, *_ = await numbered(store, 3, 2)
    elif why == "scheduled":
        first, *_ = await sent(store, 1, due_in=HOUR)
    else:
        first, *_ = await sent(store, 3)
    match why:
        case "running":
            await store.claim(asks(first))
        case "paused":
            await store.pause_group("g", "by ops")
        case "retrying" | "overtaken":
            await runs(store, first, Retrying(FAILURE, HOUR))
        case "unhandled":
            await runs(store, first, Unhandled("no actor"))
        case _:
            pass
    assert await looked(db, store) == []


async def test_groups_are_looked_at_longest_still_first_up_to_a_limit_and_once_in_a_while(db: World) -> None:
    store = await db.worker()
    for n in range(5):
        await sent(store, 1, f"g{n}")
        await still_since(db, HOUR + n * MINUTE, f"g{n}")
    before = clock.wall() - MINUTE
    assert [await store.mend_groups(before, 2) for _ in range(4)] == [2, 2, 1, 0]
    assert await store.mend_groups(clock.wall() + MINUTE, 10) == 5


async def test_group_that_moves_is_not_looked_at(db: World) -> None:
    store = await db.worker()
    first, _ = await sent(store, 2)
    await still_since(db, HOUR, "g")
    await runs(store, first)
    assert await store.mend_groups(clock.wall() - MINUTE, 10) == 0


async def test_groups_of_which_nothing_is_left_are_forgotten(db: World) -> None:
    store = await db.worker()
    names = ("gone", "numbered", "kept", "paused", "later")
    for name in names[:3]:
        [job] = await (numbered(store, 1, group=name) if name == "numbered" else sent(store, 1, name))
        if name != "kept":
            await runs(store, job)
    await store.pause_group("paused", "by ops")
    await sent(store, 1, "later", due_in=HOUR)
    await store.cancel_group("never seen", "who knows")
    assert await looked(db, store, *names, "never seen") == []
    assert [name for name in (*names, "never seen") if await moved_at(db, name) is not None] == list(names[1:])
    # Its jobs are still to be seen.
    assert (await the_group(store, "gone")).state is GroupState.IDLE


async def test_racing_looks_look_at_each_group_once(db: World) -> None:
    stores = [await db.worker() for _ in range(3)]
    names = [f"g{n}" for n in range(60)]
    for name in names:
        await sent(stores[0], 1, name)
    await still_since(db, HOUR, *names)
    before, looked_at = clock.wall() - MINUTE, 0
    while counts := await asyncio.gather(*(store.mend_groups(before, 7) for store in stores)):
        if not sum(counts):
            break
        looked_at += sum(counts)
    assert looked_at == 60


# -- rows that somebody has changed


@pytest.mark.parametrize(
    ("held", "waiting"), [(0, 2), (2, 2), (1, 0), (1, 1), (-1, 2), (0, 0)], ids=lambda count: str(count)
)
async def test_wrong_counts_are_counted_anew(db: World, held: int, waiting: int) -> None:
    store = await db.worker()
    jobs = await sent(store, 3)
    await set_group(db, held=held, waiting=waiting)
    told = await looked(db, store)
    assert told == ["g"]
    assert await is_counted(db)
    for job in jobs:
        await runs(store, job)


@pytest.mark.parametrize(
    "values",
    [
        {"held": 1},
        {"held": 1, "waiting": 7},
        {"waiting": 0, "held": 1},
    ],
    ids=str,
)
async def test_group_that_stands_still_for_its_counts_goes_on(db: World, values: dict[str, int]) -> None:
    """Nothing of it runs, and nobody would ever release the first one."""
    store = await db.worker()
    first, second, third = await sent(store, 3)
    await db.change(first.id, state="cancelled", final_state="cancelled", has_place=False, publish_at=None)
    await set_group(db, **values)
    assert await looked(db, store) == ["g"]
    assert await states(db, [second, third]) == ["queued", "waiting"]
    assert ids_of(await store.take_unpublished(None, 10, HOUR)) == [second.id]


async def test_job_that_was_queued_by_hand_waits_for_its_turn(db: World) -> None:
    store = await db.worker()
    first, second = await sent(store, 2)
    await db.change(second.id, state="queued", parked_at=None, publish_at=clock.wall())
    assert await looked(db, store) == ["g"]
    assert await states(db, [first, second]) == ["queued", "waiting"]
    row = await db.the_row(second.id)
    assert (row.publish_at, row.has_place) == (None, False)
    await runs(store, first)
    assert await states(db, [second]) == ["queued"]


async def test_ended_job_that_was_queued_by_hand_is_given_a_place(db: World) -> None:
    """The group has no other job: its row says that it is idle."""
    store = await db.worker()
    [job] = await sent(store, 1)
    await runs(store, job)
    await db.change(job.id, state="queued", final_state=None, dispatch=2, publish_at=clock.wall())
    assert await looked(db, store) == ["g"]
    assert await states(db, [job]) == ["queued"]
    await runs(store, job)
    assert await is_counted(db)


async def test_run_without_a_place_gets_one(db: World) -> None:
    store = await db.worker()
    first, second = await sent(store, 2)
    request = asks(first)
    answer = await store.claim(request)
    await db.change(first.id, has_place=False)
    await set_group(db, held=0)
    assert await looked(db, store) == ["g"]
    assert await states(db, [first, second]) == ["running", "waiting"]
    await ends(store, request, answer)
    assert await states(db, [second]) == ["queued"]
    assert await is_counted(db)


async def test_queued_job_of_a_paused_group_is_withdrawn(db: World) -> None:
    store = await db.worker()
    [job] = await sent(store, 1)
    await set_group(db, paused_at=clock.wall(), paused_reason="by hand")
    assert await looked(db, store) == ["g"]
    assert await states(db, [job]) == ["waiting"]


async def test_row_of_a_group_that_was_lost_is_made_anew_and_true(db: World) -> None:
    store = await db.worker()
    jobs = await sent(store, 3)
    await db.execute(sa.delete(db.tables.groups))
    await runs(store, jobs[0])
    assert await wrong_in(db) == []
    await sent(store, 1)
    for job in jobs[1:]:
        await runs(store, job)
    assert await wrong_in(db) == []


# -- rules that were changed


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (1, 3, ["queued", "queued", "queued", "waiting"]),
        (3, 1, ["queued", "waiting", "waiting", "waiting"]),
    ],
)
async def test_group_follows_its_rule_when_that_was_changed(
    db: World, before: int, after: int, expected: list[str]
) -> None:
    store = await db.worker()
    with_rule(store, concurrency=before)
    jobs = await sent(store, 4)
    with_rule(store, concurrency=after)
    assert await looked(db, store) == ["g"]
    assert await states(db, jobs) == expected


async def test_retry_that_may_be_overtaken_from_now_on_is_passed(db: World) -> None:
    store = await db.worker()
    first, second = await sent(store, 2)
    await runs(store, first, Retrying(FAILURE, timedelta(hours=1)))
    with_rule(store, overtake=True)
    assert await looked(db, store) == ["g"]
    assert await states(db, [first, second]) == ["retrying", "queued"]
