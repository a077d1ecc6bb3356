"""Operators' retries: failed and cancelled jobs run again as if they were new, in their old places."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.model.job import JobId, JobState, is_job_id
from jq_actors.model.turn_rules import BEHIND
from jq_actors.store.database.database import Database
from jq_actors.store.database.dialect import encode_column
from jq_actors.store.records import JobFilter
from jq_actors.store.rows.dispatches import queued_anew
from jq_actors.store.tables import JOB_ID, NO_PLACE, Tables

from .rows import GroupRows
from .turns import NOW, GroupTurns, waiting

_RETRIED = sorted((JobState.FAILED.value, JobState.CANCELLED.value))


class Retries:
    """Queues ended jobs again. Their attempts stay; the retry policy counts from the start."""

    def __init__(self, database: Database, tables: Tables, rows: GroupRows, turns: GroupTurns) -> None:
        self._database, self._tables, self._rows, self._turns = database, tables, rows, turns
        jobs = tables.jobs
        c, b = jobs.c, database.dialect.rows({"id": JOB_ID})
        self._groups = sa.select(c.group_key).join(b, b.c.id == c.id).where(c.group_key.is_not(None)).distinct()
        # In the order of their rows: two that retry the same jobs do not wait for each other in a circle.
        picked = (
            sa.select(c.seq)
            .join(b, b.c.id == c.id)
            .where(c.final_state.in_(_RETRIED))
            .order_by(c.seq)
            .with_for_update(of=jobs)
            .cte("picked")
        )
        # A job that was cancelled before it was due never had another place than that of its sending.
        place = sa.case((c.order_key == NO_PLACE, None), else_=c.order_key)
        anew = queued_anew(jobs) | {"order_key": place, "final_state": None, "finished_at": None}
        anew |= {"due_at": NOW, "attempt": 0, "crashes": 0}
        retry = sa.update(jobs).where(c.seq == picked.c.seq).values(anew)
        self._alone = retry.where(c.group_key.is_(None)).returning(c.seq, c.id)
        # It gets its old place, but does not run at once: `GroupTurns` decides when.
        waits = retry.values(waiting(BEHIND)).where(c.group_key.is_not(None))
        self._in_groups = waits.returning(c.seq, c.id, c.group_key)

    async def retry(self, where: JobFilter, job_ids: Sequence[JobId], limit: int, now: datetime) -> list[JobId]:
        """Queue up to ``limit`` ended jobs again, those that were sent first before the others."""
        wanted = [job_id for job_id in dict.fromkeys(job_ids) if is_job_id(job_id)][:limit]

        async def retry(connection: AsyncConnection) -> list[JobId]:
            ids = wanted if job_ids else list((await connection.execute(self._find(where, limit))).scalars())
            return await self._retry(connection, ids, now)

        return await self._database.write(retry)

    async def _retry(self, connection: AsyncConnection, job_ids: Sequence[str], now: datetime) -> list[JobId]:
        batch = {"batch": encode_column("id", job_ids)}
        names = (await connection.execute(self._groups, batch)).scalars().all()
        groups = await self._rows.lock(connection, names, now)
        rows = list((await connection.execute(self._alone, {**batch, "now": now})).all())
        for row in (await connection.execute(self._in_groups, {**batch, "now": now})).all() if names else ():
            groups.add(row.group_key, waiting=1)
            rows.append(row)
        await self._turns.give(connection, groups, now)
        return [JobId(row.id) for row in sorted(rows, key=lambda row: row.seq)]

    def _find(self, where: JobFilter, limit: int) -> sa.Select[Any]:
        c = self._tables.jobs.c
        states = sorted({state.value for state in where.states} & set(_RETRIED)) if where.states else _RETRIED
        conditions: list[sa.ColumnElement[bool]] = [
            column == wanted
            for column, wanted in ((c.actor, where.actor), (c.queue, where.queue), (c.group_key, where.group))
            if wanted is not None
        ]
        if where.tags:
            conditions.append(self._database.dialect.has_tags(c.tags, where.tags))
        pages = [
            sa.select(c.seq).where(*conditions, c.final_state == state).order_by(c.seq).limit(limit).subquery()
            for state in states
        ]
        if not pages:
            return sa.select(c.id).where(sa.false())
        union = sa.union_all(*(sa.select(page.c.seq) for page in pages)).subquery()
        return sa.select(c.id).join(union, union.c.seq == c.seq).order_by(c.seq).limit(limit)
