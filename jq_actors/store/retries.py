"""Operators' retries: what has failed or was cancelled runs again, as if it were new, in its old place."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.job import JobId, JobState, is_job_id

from .database import Database
from .dialect import encode_rows
from .group_release import NOW, queued_anew
from .records import JobFilter
from .tables import JOB_ID, NO_PLACE, Tables

_RETRIED = sorted((JobState.FAILED.value, JobState.CANCELLED.value))


class Retries:
    """Queues ended jobs again. Their attempts stay; the retry policy counts from the start."""

    def __init__(self, database: Database, tables: Tables) -> None:
        self._database, self._tables = database, tables
        jobs = tables.jobs
        b = database.dialect.rows({"id": JOB_ID})
        # In the order of their rows: two that retry the same jobs do not wait for each other in a circle.
        picked = (
            sa.select(jobs.c.seq)
            .join(b, b.c.id == jobs.c.id)
            .where(jobs.c.final_state.in_(_RETRIED))
            .order_by(jobs.c.seq)
            .with_for_update(of=jobs)
            .cte("picked")
        )
        # What was cancelled before it was due never had another place than that of its sending.
        place = sa.case((jobs.c.order_key == NO_PLACE, None), else_=jobs.c.order_key)
        anew = (
            queued_anew(jobs)
            | {"order_key": place}
            | {"final_state": None, "finished_at": None, "due_at": NOW, "attempt": 0, "crashes": 0}
        )
        self._retry = sa.update(jobs).where(jobs.c.seq == picked.c.seq).values(anew).returning(jobs.c.seq, jobs.c.id)

    async def retry(self, where: JobFilter, job_ids: Sequence[JobId], limit: int, now: datetime) -> list[JobId]:
        """See JobStore. Oldest first: of more than ``limit``, those that were sent before the others."""

        async def retry(connection: AsyncConnection) -> list[JobId]:
            wanted = [job_id for job_id in dict.fromkeys(job_ids) if is_job_id(job_id)][:limit]
            if not job_ids:
                wanted = list((await connection.execute(self._find(where, limit))).scalars())
            batch = encode_rows([{"id": job_id} for job_id in wanted])
            rows = (await connection.execute(self._retry, {"batch": batch, "now": now})).all()
            return [JobId(row.id) for row in sorted(rows, key=lambda row: row.seq)]

        return await self._database.write(retry)

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
