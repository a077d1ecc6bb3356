"""Jobs of groups that were under way in lanes: led by rows from the upgrade on, none lost, none twice, in order."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from jq_actors.model.claim_rules import Verdict
from jq_actors.model.group_rules import GroupRule, GroupRules
from jq_actors.model.job import FINAL_STATES, JobId, JobState
from jq_actors.model.outcome import Succeeded
from jq_actors.store.records import ClaimRequest, Settlement
from jq_actors.store.sql import SqlStore
from jq_actors.store.tables import NO_PLACE

from .grouped import HOUR, numbered
from .migrating import Values, old_group, old_jobs, upgrade_to
from .places import wrong_in
from .stores import World, clock, world_on
from .turns import FITS, a_chain

OF_EACH_KIND = 10
"""Groups of each kind; a group has ten jobs."""
SECOND = timedelta(seconds=1)


@pytest.fixture
async def old(store_url: str) -> AsyncIterator[World]:
    """A database as revision 0002 has it: on SQLite and PostgreSQL."""
    await asyncio.to_thread(upgrade_to, store_url, "0002")
    async with world_on(store_url) as world:
        await world.add_worker("lost", clock.wall() - HOUR)
        yield world


# -- what a release with lanes left behind


def in_its_lane() -> Values:
    return {"state": "queued", "published_at": clock.wall()}


def in_memory() -> Values:
    return {"state": "queued", "published_at": clock.wall(), "lane_owner": "lost"}


def unpublished() -> Values:
    return {"state": "queued", "publish_at": clock.wall() + 30 * SECOND}


def parked() -> Values:
    return {"state": "waiting", "parked_at": clock.wall(), "reason": "behind job x, which runs"}


def running() -> Values:
    started = {"started_at": clock.wall(), "attempt": 1, "run_token": clock.random_bits(62)}
    return {"state": "running", "worker_id": "lost", "published_at": clock.wall()} | started


def retrying() -> Values:
    due = clock.wall() - SECOND
    # Its delivery was kept in hand: a relay was to look half a minute later.
    return {"state": "retrying", "due_at": due, "wake_at": due + 30 * SECOND, "attempt": 1, "lane_owner": "lost"}


def scheduled() -> Values:
    return {"state": "scheduled", "due_at": clock.wall() - SECOND, "wake_at": clock.wall() - SECOND} | {
        "order_key": NO_PLACE
    }


def unhandled() -> Values:
    return {"state": "unhandled", "reason": "no actor called 'send_mail'", "published_at": clock.wall()}


def succeeded() -> Values:
    return {"state": "succeeded", "final_state": "succeeded", "finished_at": clock.wall(), "attempt": 1}


HEADS = {
    "lane": in_its_lane,
    "memory": in_memory,
    "unpublished": unpublished,
    "parked": parked,
    "running": running,
    "retrying": retrying,
    "unhandled": unhandled,
}
"""Kinds of groups by what their first job does; the others are in their lanes, or parked."""


class Left:
    """All that was left, and in which order each group has to run it."""

    def __init__(self) -> None:
        self.order: dict[str, list[JobId]] = {}

    async def leave(self, old: World) -> None:
        """Put a thousand jobs of groups there, and some of none."""
        for n in range(OF_EACH_KIND):
            for kind, head in HEADS.items():
                await self._plain(old, f"{kind} {n}", [head(), *(in_its_lane() for _ in range(4)), *_five_parked()])
            await self._plain(old, f"paused {n}", [*(in_its_lane() for _ in range(5)), *_five_parked()])
            await old.execute(_paused(old, f"paused {n}"))
            await self._scheduled(old, f"scheduled {n}")
            await self._numbered(old, f"numbered {n}")
        states = [in_its_lane(), unpublished(), running(), scheduled() | {"order_key": None}]
        self.order[""] = await old_jobs(old, states)

    async def _plain(self, old: World, name: str, jobs: list[Values]) -> None:
        await old_group(old, name)
        self.order[name] = await old_jobs(old, jobs, group_key=name)

    async def _scheduled(self, old: World, name: str) -> None:
        """What is scheduled was sent first, and comes last."""
        await old_group(old, name)
        jobs = [*(scheduled() for _ in range(4)), running(), *(in_its_lane() for _ in range(5))]
        ids = await old_jobs(old, jobs, group_key=name)
        self.order[name] = [*ids[4:], *ids[:4]]

    async def _numbered(self, old: World, name: str) -> None:
        """Sent from the last to the first; 1 has ended, 2 runs, 8 has not come, and the row says less than it could."""
        await old_group(old, name, next_position=1)
        jobs = {11: parked(), 10: parked(), 9: in_its_lane(), 7: parked(), 6: in_its_lane(), 5: parked()}
        jobs |= {4: in_its_lane(), 3: parked(), 2: running(), 1: succeeded()}
        ids = await old_jobs(old, [values | {"position": n} for n, values in jobs.items()], group_key=name)
        by_number = sorted(zip(jobs, ids, strict=True))
        self.order[name] = [job_id for n, job_id in by_number if n > 1]


def _five_parked() -> list[Values]:
    return [parked() for _ in range(5)]


def _paused(old: World, name: str) -> sa.Update:
    groups = old.tables.groups
    return sa.update(groups).where(groups.c.name == name).values(paused_at=clock.wall(), paused_reason="by ops")


# -- what this release makes of it


class Workers:
    """Two workers that run all that there is, and what they have begun."""

    def __init__(self, world: World, stores: list[SqlStore]) -> None:
        self.world, self.stores = world, stores
        self.began: defaultdict[str, list[JobId]] = defaultdict(list)
        self._turn = 0

    async def look(self) -> None:
        """What their relays do."""
        store = self.stores[0]
        await store.recover(10_000)
        await store.take_due(10_000, HOUR)
        await store.mend_groups(clock.wall() - SECOND, 10_000)

    async def run(self) -> int:
        """Run what is queued, and now and then what follows it at once; returns how many that were."""
        jobs = self.world.tables.jobs
        query = sa.select(jobs).where(jobs.c.state == JobState.QUEUED.value).order_by(jobs.c.seq)
        rows = await self.world.execute(query)
        ran = await asyncio.gather(*(self._live(self.stores[n % 2], row) for n, row in enumerate(rows)))
        return sum(ran)

    async def _live(self, store: SqlStore, row: sa.Row[Any]) -> int:
        token = clock.random_bits(62)
        answer = await store.claim(ClaimRequest(row.id, row.dispatch, token, True, None))
        if answer.verdict is not Verdict.GRANT:
            return 0
        job_id, ran = JobId(row.id), 0
        while True:
            self.began[answer.group or ""].append(job_id)
            ran, self._turn, now = ran + 1, self._turn + 1, store.now()
            wish = a_chain() if self._turn % 3 else None
            settlement = Settlement(job_id, token, Succeeded(), now, now, group=answer.group, chain=wish)
            settled = await store.settle(settlement)
            assert settled.written
            if settled.next is None:
                return ran
            job_id, token = settled.next.job_id, settled.next.run_token


async def upgraded(old: World) -> Workers:
    """Workers of this release come, and make the upgrade."""
    stores = [await old.worker() for _ in range(2)]
    for store in stores:
        store.rules, store.fits = GroupRules((GroupRule("*"),)), FITS
    return Workers(old, stores)


async def test_a_thousand_jobs_in_lanes_are_run_to_their_end(old: World) -> None:
    left = Left()
    await left.leave(old)
    workers = await upgraded(old)
    assert [problem for problem in await wrong_in(old) if "to change" not in problem] == []
    await workers.look()
    assert await wrong_in(old) == []

    store = workers.stores[0]
    while await workers.run():
        await workers.look()
    # Now nothing moves but for these.
    assert {*await store.count_by_state()} == {JobState.SUCCEEDED, JobState.WAITING, JobState.UNHANDLED}
    await store.offer_unhandled(["send_mail"])
    for n in range(OF_EACH_KIND):
        assert await store.resume_group(f"paused {n}") == 1
        [eight] = await numbered(store, 8, group=f"numbered {n}")
        left.order[f"numbered {n}"].insert(6, eight.id)
    while await workers.run():
        await workers.look()
    assert await wrong_in(old) == []

    assert {*await store.count_by_state()} <= FINAL_STATES
    alone = left.order.pop("")
    assert sorted(workers.began.pop("")) == sorted(alone)
    assert sum(len(ids) for ids in left.order.values()) == 100 * OF_EACH_KIND
    assert workers.began == left.order


async def test_run_that_is_lost_in_the_upgrade_counts_as_a_crash_and_goes_on_in_its_place(old: World) -> None:
    await old_group(old, "g")
    first, second = await old_jobs(old, [running(), in_its_lane()], group_key="g")
    workers = await upgraded(old)
    await workers.look()
    rows = [await old.the_row(job_id) for job_id in (first, second)]
    assert [(row.state, row.has_place, row.crashes) for row in rows] == [("queued", True, 1), ("waiting", False, 0)]
    # What a lane still holds of it is a copy of what waits.
    token = clock.random_bits(62)
    answer = await workers.stores[0].claim(ClaimRequest(second, 1, token, True, None))
    assert answer.verdict is Verdict.DROP_STALE


async def test_worker_that_lives_through_the_upgrade_keeps_what_it_runs(old: World) -> None:
    """It settles by this release's rules: a stopped process that was upgraded under its feet."""
    await old_group(old, "g")
    first, second = await old_jobs(old, [running() | {"run_token": 7}, in_its_lane()], group_key="g")
    workers = await upgraded(old)
    store = workers.stores[0]
    now = store.now()
    assert (await store.settle(Settlement(first, 7, Succeeded(), now, now, group="g"))).written
    assert (await old.the_row(second)).state == JobState.QUEUED
    assert await wrong_in(old) == []


async def test_groups_without_a_row_have_one(old: World) -> None:
    first, second = await old_jobs(old, [in_its_lane(), in_its_lane()], group_key="g")
    workers = await upgraded(old)
    await workers.look()
    assert await wrong_in(old) == []
    while await workers.run():
        pass
    assert workers.began == {"g": [first, second]}
