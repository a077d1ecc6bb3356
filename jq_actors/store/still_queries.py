"""Groups that stand still although one of their first jobs is published: to find them, and what the broker lost."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.job import JobState
from jq_actors.turns import Start, turn_of

from .database import Database
from .dialect import Dialect, encode_rows
from .group_release import NOW
from .group_rows import GroupRows
from .group_views import GroupViews, Sight
from .records import Dispatch, StillGroup
from .relay_queries import RelayQueries, dispatch_columns
from .tables import NO_PLACE, Tables, UtcDateTime, group_order

ROUND = 500
"""Groups that one transaction looks at."""
LOST_AT_ONCE = 10_000
"""Rows that are found lost in one look."""

_LIMIT = sa.bindparam("limit", type_=sa.Integer)
_LEASE = sa.bindparam("lease", type_=UtcDateTime)
_BEFORE = sa.bindparam("before", type_=UtcDateTime)


class StillQueries:
    """Looks at each group once in a while, and forgets those of which nothing is left."""

    def __init__(
        self, database: Database, tables: Tables, rows: GroupRows, views: GroupViews, relay: RelayQueries
    ) -> None:
        self._database, self._rows, self._views, self._relay = database, rows, views, relay
        g, jobs = tables.groups.c, tables.jobs
        c = jobs.c
        left = sa.exists().where(c.group_key == g.name, c.final_state.is_(None))
        # One that is locked is moving.
        picked = (
            sa.select(g.name)
            # A numbered one is not forgotten here; without jobs it is not worth a write with each look either.
            .where(g.moved_at < _BEFORE, g.paused_at.is_(None), g.next_position.is_(None) | left)
            .order_by(g.moved_at)
            .limit(_LIMIT)
            .with_for_update(skip_locked=True)
            .cte("picked")
        )
        self._pick = sa.update(tables.groups).where(g.name == picked.c.name).values(moved_at=NOW).returning(g.name)
        names = database.dialect.rows({"name": sa.Text()})
        self._forget = sa.delete(tables.groups).where(
            g.name.in_(sa.select(names.c.name)),
            g.paused_at.is_(None),
            g.next_position.is_(None),
            ~left,
        )
        ids = database.dialect.rows({"id": c.id.type})
        self._published = sa.select(c.id).join(ids, ids.c.id == c.id).where(_is_published(jobs))
        self._take_lost = _lost(tables, database.dialect, publish_at=_LEASE, published_at=NOW)
        self._unpublish = _lost(tables, database.dialect, publish_at=NOW, published_at=None)

    async def still_groups(self, before: datetime, limit: int, now: datetime) -> list[StillGroup]:
        """See JobStore. Goes on until it has found so many, or has looked at all."""
        found: list[StillGroup] = []
        while len(found) < limit:
            wanted = min(ROUND, limit - len(found))
            looked_at, still = await self._database.write(partial(self._look, before=before, limit=wanted, now=now))
            found += still
            if looked_at < wanted:
                break
        return found

    async def take_lost(
        self, still: Sequence[StillGroup], limit: int, now: datetime, lease: timedelta
    ) -> list[Dispatch]:
        """See JobStore. What is beyond ``limit`` becomes unpublished: any relay publishes it."""
        lanes = encode_rows([{"n": n, "name": group.group, "queue": group.queue} for n, group in enumerate(still)])
        taken = await self._relay.lease(self._take_lost, {"batch": lanes, "limit": limit}, now, lease)
        if len(taken) >= limit:
            rest = {"batch": lanes, "limit": LOST_AT_ONCE, "now": now}
            await self._database.write(lambda connection: connection.execute(self._unpublish, rest))
        return taken

    async def _look(
        self, connection: AsyncConnection, before: datetime, limit: int, now: datetime
    ) -> tuple[int, list[StillGroup]]:
        names = list((await connection.execute(self._pick, {"before": before, "limit": limit, "now": now})).scalars())
        if not names:
            return 0, []
        rows = await self._rows.read(connection, names)
        sights = (await self._views.read(connection, rows)).sights.values()
        still = await self._published_starts(connection, list(sights), now)
        idle = [{"name": sight.row.name} for sight in sights if not sight.members]
        if idle:
            await connection.execute(self._forget, {"batch": encode_rows(idle)})
        return len(names), still

    async def _published_starts(
        self, connection: AsyncConnection, sights: Sequence[Sight], now: datetime
    ) -> list[StillGroup]:
        """The queues in which a job of each group could start, and is published."""
        starts = {sight.row.name: [m for m in sight.members if m.state is JobState.QUEUED] for sight in sights}
        ids = [{"id": member.job_id} for members in starts.values() for member in members]
        published = set((await connection.execute(self._published, {"batch": encode_rows(ids)})).scalars())
        still: dict[StillGroup, None] = {}
        for sight in sights:
            for member in starts[sight.row.name]:
                could_start = isinstance(turn_of(sight.view(), member.job_id, member.queue, now), Start)
                if member.job_id in published and could_start:
                    still.setdefault(StillGroup(sight.row.name, member.queue))
        return list(still)


def _is_published(jobs: sa.FromClause) -> sa.ColumnElement[bool]:
    return sa.and_(jobs.c.state == JobState.QUEUED.value, jobs.c.publish_at.is_(None))


def _lost(tables: Tables, dialect: Dialect, **values: Any) -> sa.UpdateBase:
    jobs = tables.jobs
    c = jobs.c
    lanes = dialect.rows({"n": sa.Integer(), "name": sa.Text(), "queue": sa.Text()})
    job = jobs.alias("job_of_lane")
    of_lane = (
        sa.select(job.c.seq)
        .where(job.c.group_key == lanes.c.name, job.c.final_state.is_(None), group_order(job) < NO_PLACE)
        .where(job.c.queue == lanes.c.queue, _is_published(job))
        .order_by(group_order(job))
        .limit(_LIMIT)
    )
    lost = (
        sa.select(c.seq)
        .select_from(dialect.each_with(lanes, of_lane, jobs, c.seq))
        .order_by(lanes.c.n, group_order(jobs))
        .limit(_LIMIT)
        .with_for_update(of=jobs, skip_locked=True)
        .cte("lost")
    )
    return (
        sa.update(jobs)
        .where(c.seq == lost.c.seq)
        .values(redispatches=c.redispatches + 1, lane_owner=None, **values)
        .returning(*dispatch_columns(jobs))
    )
