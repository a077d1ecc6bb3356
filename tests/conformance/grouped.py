"""Jobs of groups, and the states that tests put them in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from jq_actors.group import Group
from jq_actors.groups import GroupRule, GroupRules
from jq_actors.job import JobId
from jq_actors.store.records import Dispatch, NewJob
from jq_actors.store.sql import SqlStore

from .stores import World, clock, job_ids, new_job

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


async def sent(store: SqlStore, count: int = 1, group: str | None = "g", **values: Any) -> list[NewJob]:
    """Jobs of a group, leased to their producer."""
    jobs = [new_job(job_id, group=group, **values) for job_id in job_ids(count)]
    await store.insert(jobs, publish_lease=HOUR)
    return jobs


async def numbered(store: SqlStore, *positions: int, group: str = "g") -> list[NewJob]:
    """Jobs with these numbers, sent in this order."""
    ids = job_ids(len(positions))
    jobs = [replace(new_job(i, group=group), position=n) for i, n in zip(ids, positions, strict=True)]
    await store.insert(jobs, publish_lease=HOUR)
    return jobs


async def published(db: World, jobs: Iterable[NewJob], ago: timedelta = timedelta()) -> None:
    """They are at the broker, since ``ago``."""
    for job in jobs:
        await db.change(job.id, publish_at=None, published_at=clock.wall() - ago)


async def parked(db: World, jobs: Iterable[NewJob], ago: timedelta = timedelta()) -> None:
    """They were claimed too early, and are waiting since ``ago``."""
    for job in jobs:
        since = clock.wall() - ago
        await db.change(job.id, state="waiting", parked_at=since, publish_at=None, published_at=since, reason="behind")


async def running(db: World, *jobs: NewJob, ago: timedelta = timedelta()) -> None:
    """They run since ``ago``, and their group knows it."""
    for job in jobs:
        await db.change(job.id, state="running", publish_at=None, started_at=clock.wall() - ago, attempt=1)
    groups = db.tables.groups
    holders = [job.id for job in jobs]
    await db.execute(sa.update(groups).where(groups.c.name == jobs[0].group).values(holders=holders))


async def ended(db: World, *jobs: NewJob, took: timedelta = timedelta(seconds=1), state: str = "succeeded") -> None:
    """They have run for so long, and ended just now."""
    now = clock.wall()
    for job in jobs:
        times = {"started_at": now - took, "finished_at": now, "publish_at": None, "attempt": 1}
        await db.change(job.id, state=state, final_state=state, **times)


async def still_since(db: World, ago: timedelta, *names: str) -> None:
    """The groups have not moved for so long."""
    groups = db.tables.groups
    moved = sa.update(groups).where(groups.c.name.in_(names)).values(moved_at=clock.wall() - ago)
    await db.execute(moved)


async def moved_at(db: World, name: str) -> datetime | None:
    """When the group moved; ``None``: it has no row."""
    groups = db.tables.groups
    rows = await db.execute(sa.select(groups.c.moved_at).where(groups.c.name == name))
    return rows[0].moved_at if rows else None


async def states(db: World, jobs: Iterable[NewJob]) -> list[str]:
    return [(await db.the_row(job.id)).state for job in jobs]


async def the_group(store: SqlStore, name: str = "g") -> Group:
    group = await store.get_group(name)
    assert group is not None
    return group


def with_rule(store: SqlStore, **values: Any) -> None:
    """What holds for all groups of the store."""
    store.rules = GroupRules((GroupRule(**values),))


def ids_of(jobs: Iterable[NewJob | Dispatch]) -> list[JobId]:
    return [job.id if isinstance(job, NewJob) else job.job_id for job in jobs]


async def order_of(store: SqlStore, name: str = "g") -> list[JobId]:
    """The jobs of a group as they will run."""
    return [job.id for job in await store.first_of_group(name, 100)]


def numbers(dispatches: Sequence[Dispatch]) -> list[tuple[JobId, int]]:
    return [(dispatch.job_id, dispatch.dispatch) for dispatch in dispatches]
