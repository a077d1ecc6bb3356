"""Jobs of groups, and the states that tests put them in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from jq_actors.model.group import Group
from jq_actors.model.group_rules import GroupRule, GroupRules
from jq_actors.model.job import JobId
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


async def running(db: World, *jobs: NewJob, ago: timedelta = timedelta()) -> None:
    """They run since ``ago``, in the places that they have or get."""
    started = clock.wall() - ago
    for job in jobs:
        values = {"state": "running", "started_at": started, "attempt": 1, "has_place": True}
        await db.change(job.id, publish_at=None, parked_at=None, **values)
    await counted(db, *{job.group for job in jobs if job.group is not None})


async def counted(db: World, *names: str) -> None:
    """What the rows of the groups say of their jobs is true."""
    jobs, groups = db.tables.jobs.c, db.tables.groups

    def count(*which: sa.ColumnElement[bool]) -> sa.ScalarSelect[int]:
        of_group = (jobs.group_key == groups.c.name, jobs.final_state.is_(None))
        return sa.select(sa.func.count()).where(*of_group, *which).scalar_subquery()

    values = {"held": count(jobs.has_place), "waiting": count(jobs.state == "waiting")}
    await db.execute(sa.update(groups).where(groups.c.name.in_(names)).values(version=groups.c.version + 1, **values))


async def is_counted(db: World, name: str = "g") -> bool:
    """Whether the group's row says what its jobs' rows say."""
    groups = db.tables.groups
    row = sa.select(groups.c.held, groups.c.waiting).where(groups.c.name == name)
    [before] = await db.execute(row)
    await counted(db, name)
    [after] = await db.execute(row)
    return tuple(before) == tuple(after)


async def ended(db: World, *jobs: NewJob, took: timedelta = timedelta(seconds=1), state: str = "succeeded") -> None:
    """They have run for so long, and ended just now."""
    now = clock.wall()
    for job in jobs:
        times = {"started_at": now - took, "finished_at": now, "publish_at": None, "attempt": 1}
        await db.change(job.id, state=state, final_state=state, has_place=False, parked_at=None, **times)
    await counted(db, *{job.group for job in jobs if job.group is not None})


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
