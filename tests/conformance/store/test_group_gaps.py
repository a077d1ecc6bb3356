"""Numbered groups that wait for a number: for ever, for as long as their rule says, or until they are paused for it."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from jq_actors.errors import PositionTakenError
from jq_actors.events import GroupPaused
from jq_actors.model.group_rules import GroupRule, GroupRules, OnGap
from jq_actors.model.outcome import Failed, Failure
from jq_actors.store.groups import sweep
from jq_actors.store.records import NewJob
from jq_actors.store.sql import SqlStore

from .grouped import HOUR, MINUTE, ids_of, numbered, states, the_group, with_rule
from .stores import World, clock
from .turns import runs

FAILURE = Failure(None, "ValueError: no")


async def waiting_since(db: World, ago: timedelta, *jobs: NewJob) -> None:
    """They have waited for so long."""
    for job in jobs:
        await db.change(job.id, parked_at=clock.wall() - ago)


async def with_a_gap(db: World, store: SqlStore, *positions: int, ago: timedelta, group: str = "g") -> list[NewJob]:
    """The first of a group has ended; behind it the second is missing, for as long as those at ``positions`` wait."""
    first, *others = await numbered(store, 1, *positions, group=group)
    await runs(store, first)
    await db.change(first.id, finished_at=clock.wall() - 2 * HOUR)
    await waiting_since(db, ago, *others)
    return others


async def test_without_a_timeout_a_gap_is_for_ever(led: World) -> None:
    store = await led.worker()
    [third] = await with_a_gap(led, store, 3, ago=1000 * HOUR)
    assert await store.end_gaps(100) == 0
    assert await states(led, [third]) == ["waiting"]


async def test_gap_that_lasted_too_long_is_passed(led: World) -> None:
    store = await led.worker()
    with_rule(store, gap_timeout=MINUTE)
    third, fourth = await with_a_gap(led, store, 3, 4, ago=timedelta(seconds=50))
    assert await store.end_gaps(100) == 0
    await waiting_since(led, timedelta(seconds=70), third)
    assert await store.end_gaps(100) == 1
    assert await states(led, [third, fourth]) == ["queued", "waiting"]
    assert ids_of(await store.take_unpublished(None, 10, HOUR)) == [third.id]
    with pytest.raises(PositionTakenError, match="Position 2 of group 'g' is past: it goes on with 4"):
        await numbered(store, 2)
    await runs(store, third)
    await runs(store, fourth)


async def test_with_room_for_several_all_up_to_the_next_gap_are_released(led: World) -> None:
    store = await led.worker()
    with_rule(store, gap_timeout=MINUTE, concurrency=4)
    jobs = await with_a_gap(led, store, 3, 4, 6, ago=HOUR)
    assert await store.end_gaps(100) == 2
    assert await states(led, jobs) == ["queued", "queued", "waiting"]
    assert (await the_group(store)).next_position == 3  # the first that has not had its turn
    assert await store.end_gaps(100) == 1
    assert await states(led, jobs) == ["queued"] * 3


async def test_gap_counts_from_when_the_number_before_it_has_ended(led: World) -> None:
    store = await led.worker()
    with_rule(store, gap_timeout=MINUTE)
    first, third = await numbered(store, 1, 3)
    await waiting_since(led, HOUR, third)
    assert await store.end_gaps(100) == 0
    await runs(store, first)
    assert await store.end_gaps(100) == 0
    await led.change(first.id, finished_at=clock.wall() - 2 * MINUTE)
    assert await store.end_gaps(100) == 1


async def test_gap_may_pause_the_group_instead(led: World) -> None:
    store = await led.worker()
    with_rule(store, gap_timeout=MINUTE, on_gap=OnGap.PAUSE)
    events = led.record(GroupPaused)
    [third] = await with_a_gap(led, store, 3, ago=HOUR)
    for _ in range(2):
        assert await store.end_gaps(100) == 0
    group = await the_group(store)
    assert (group.state, group.reason) == ("paused", "position 2 did not come within 1m")
    assert events.of(GroupPaused) == [GroupPaused("g", "position 2 did not come within 1m")]
    # Resumed when the number has come, it goes on with that one.
    [second] = await numbered(store, 2)
    assert await store.resume_group("g") == 1
    assert await states(led, [second, third]) == ["queued", "waiting"]


async def test_what_is_no_gap_is_not_ended(led: World) -> None:
    store = await led.worker()
    with_rule(store, gap_timeout=MINUTE)
    runs_, behind = await numbered(store, 1, 2, group="runs")
    await waiting_since(led, HOUR, behind)
    [third] = await with_a_gap(led, store, 3, ago=HOUR, group="paused")
    await store.pause_group("paused", "by ops")
    first, second = await numbered(store, 1, 2, group="retried")
    await runs(store, first, Failed(FAILURE))
    await runs(store, second)
    assert await store.end_gaps(100) == 0
    assert await states(led, [runs_, behind, third]) == ["queued", "waiting", "waiting"]


async def test_each_group_has_the_patience_of_its_rule(led: World) -> None:
    store = await led.worker()
    store.rules = GroupRules((GroupRule("short*", gap_timeout=MINUTE), GroupRule("long*", gap_timeout=10 * HOUR)))
    jobs = [(await with_a_gap(led, store, 3, ago=HOUR, group=name))[0] for name in ("short", "long", "other")]
    assert await store.end_gaps(100) == 1
    assert await states(led, jobs) == ["queued", "waiting", "waiting"]


async def test_look_goes_on_where_the_one_before_ended(led: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "GROUPS_AT_ONCE", 3)
    store = await led.worker()
    with_rule(store, gap_timeout=MINUTE)
    jobs = [(await with_a_gap(led, store, 3, ago=HOUR, group=f"g{n}"))[0] for n in range(7)]
    assert [await store.end_gaps(100) for _ in range(4)] == [3, 3, 1, 0]
    assert await states(led, jobs) == ["queued"] * 7


async def test_racing_looks_end_a_gap_once(led: World) -> None:
    stores = [await led.worker() for _ in range(3)]
    for store in stores:
        with_rule(store, gap_timeout=MINUTE)
    jobs = [(await with_a_gap(led, stores[0], 3, 5, ago=HOUR, group=f"g{n}"))[0] for n in range(5)]
    assert sum(await asyncio.gather(*(store.end_gaps(100) for store in stores))) == 5
    assert await states(led, jobs) == ["queued"] * 5
