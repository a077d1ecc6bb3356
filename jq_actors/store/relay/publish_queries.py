"""The relay's queries: they take rows that have to be published, under a lease."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.model.job import JobState
from jq_actors.store.database.database import Database
from jq_actors.store.records import Dispatch
from jq_actors.store.rows.dispatches import Bodies, dispatch_columns, dispatches_of, queued_anew
from jq_actors.store.tables import Tables, UtcDateTime

from .publish_leases import PublishLeases

FIRST_BACKOFF = timedelta(seconds=30)
MAX_DOUBLINGS = 6
"""A row that was published again n times is missing only after 30 s · 2ⁿ; from n = 6 on, 32 minutes."""

_NOW = sa.bindparam("now", type_=UtcDateTime)
_LEASE = sa.bindparam("lease", type_=UtcDateTime)
_LIMIT = sa.bindparam("limit", type_=sa.Integer)
_QUEUE = sa.bindparam("wanted_queue", type_=sa.Text)


Row = sa.Row[Any]


class RelayQueries:
    """Takes rows for a relay. Several relays at once never take the same row."""

    def __init__(self, database: Database, tables: Tables, leases: PublishLeases) -> None:
        self._database, self._tables, self._leases = database, tables, leases
        c = tables.jobs.c
        queued = c.state == JobState.QUEUED.value
        unpublished = (c.publish_at <= _NOW, queued)
        order = (c.publish_at, c.seq)
        leased = {"publish_at": _LEASE, "lane_owner": None}
        self._take_due = self._take(
            (c.wake_at <= _NOW, c.group_key.is_(None)), (c.wake_at, c.seq), queued_anew(tables.jobs) | leased
        )
        self._take_any = self._take(unpublished, order, leased)
        self._take_of_queue = self._take((c.queue == _QUEUE, *unpublished), order, leased)
        in_broker = (c.queue == _QUEUE, c.final_state.is_(None), queued, c.publish_at.is_(None))
        self._take_missing = self._take(
            # The second condition is the first without its row's back-off: the one that the index can answer.
            (*in_broker, c.published_at <= _missing_since(c.redispatches), c.published_at <= _since(0)),
            (c.published_at,),
            leased | {"published_at": _NOW, "redispatches": c.redispatches + 1},
        )
        before = sa.bindparam("before", type_=UtcDateTime)
        published = sa.select(c.seq).where(*in_broker, c.published_at <= before).limit(_LIMIT)
        self._count_published = sa.select(sa.func.count()).select_from(published.subquery())
        self._next_due = sa.select(sa.func.min(c.wake_at)).where(c.wake_at.is_not(None))
        self._bodies = Bodies(tables, database.dialect)

    async def take_due(self, limit: int, now: datetime, lease: timedelta) -> list[Dispatch]:
        """Queue up to ``limit`` due rows outside of groups, with dispatch+1, leased for ``lease``."""
        return await self.lease(self._take_due, {"limit": limit}, now, lease)

    async def take_unpublished(
        self, room: Mapping[str, int] | None, limit: int, now: datetime, lease: timedelta
    ) -> list[Dispatch]:
        """Lease up to ``limit`` queued rows that were never published and that nobody leases, oldest first.

        ``room``: how many of each queue may be taken; ``None``: any number, of all queues.
        """
        if room is None:
            return await self.lease(self._take_any, {"limit": limit}, now, lease)
        taken: list[Dispatch] = []
        for queue, places in room.items():
            wanted = min(places, limit - len(taken))
            if wanted > 0:
                taken += await self.lease(self._take_of_queue, {"limit": wanted, "wanted_queue": queue}, now, lease)
        return taken

    async def take_missing(
        self, queue: str, published_before: datetime, limit: int, now: datetime, lease: timedelta
    ) -> list[Dispatch]:
        """Lease up to ``limit`` queued rows of ``queue`` that were published before ``published_before``."""
        parameters = {"wanted_queue": queue, "limit": limit, **_backoffs(published_before, now)}
        return await self.lease(self._take_missing, parameters, now, lease)

    async def count_published(self, queue: str, published_before: datetime, limit: int) -> int:
        """Count the queued rows of ``queue`` that the broker should have, up to ``limit``."""
        parameters = {"wanted_queue": queue, "before": published_before, "limit": limit}
        return (await self._database.read(lambda c: c.scalar(self._count_published, parameters))) or 0

    async def next_due(self) -> datetime | None:
        """Return when the next scheduled or retrying row is due; ``None``: there is no such row."""
        return await self._database.read(lambda c: c.scalar(self._next_due))

    def _take(
        self,
        where: Sequence[sa.ColumnElement[bool]],
        order: Sequence[sa.ColumnElement[Any]],
        values: Mapping[str, Any],
    ) -> sa.UpdateBase:
        jobs = self._tables.jobs
        # A table expression, for only that is evaluated once: a subquery of IN may be evaluated again for other
        # rows, and then PostgreSQL locks and takes more than LIMIT.
        picked = (
            sa.select(jobs.c.seq)
            .where(*where)
            .order_by(*order)
            .limit(_LIMIT)
            .with_for_update(skip_locked=True)
            .cte("picked")
        )
        c = jobs.c
        return sa.update(jobs).where(c.seq == picked.c.seq).values(**values).returning(*dispatch_columns(jobs))

    async def lease(
        self, statement: sa.UpdateBase, parameters: Mapping[str, Any], now: datetime, lease: timedelta
    ) -> list[Dispatch]:
        """Take the rows that ``statement`` returns, leased for so long (``lease`` and ``now`` are its parameters)."""

        async def take(connection: AsyncConnection) -> list[Dispatch]:
            rows = (await connection.execute(statement, {**parameters, "now": now, "lease": now + lease})).all()
            bodies = await self._bodies.of(connection, [row.id for row in rows])
            # In the order in which they were sent, or that their group gives them: RETURNING has none.
            return dispatches_of(sorted(rows, key=_order), bodies)

        dispatches = await self._database.write(take)
        self._leases.took([(d.job_id, d.dispatch) for d in dispatches], now + lease, now)
        return dispatches


def _order(row: Row) -> int:
    return int(row.seq if row.order_key is None else row.order_key)


def _missing_since(redispatches: sa.ColumnElement[int]) -> sa.ColumnElement[datetime]:
    return sa.case(*((redispatches == n, _since(n)) for n in range(MAX_DOUBLINGS)), else_=_since(MAX_DOUBLINGS))


def _since(redispatches: int) -> sa.BindParameter[datetime]:
    return sa.bindparam(f"since_{redispatches}", type_=UtcDateTime)


def _backoffs(published_before: datetime, now: datetime) -> dict[str, datetime]:
    # The first time is the caller's to judge: after a wiped broker it is at once.
    waits = [timedelta(), *(FIRST_BACKOFF * 2**n for n in range(1, MAX_DOUBLINGS + 1))]
    return {f"since_{n}": min(published_before, now - wait) for n, wait in enumerate(waits)}
