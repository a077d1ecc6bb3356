"""Retention: final rows are deleted after their time, in batches with short locks (A57)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.model.job import JobState
from jq_actors.store.database.database import Database
from jq_actors.store.database.dialect import encode_column
from jq_actors.store.records import Retention
from jq_actors.store.tables import JOB_ID, Tables, UtcDateTime

BATCH = 500
"""How many rows one transaction deletes: it holds locks for some ten milliseconds."""


class Pruning:
    """Deletes final rows with their payloads and attempts."""

    def __init__(self, database: Database, tables: Tables) -> None:
        self._database = database
        c, g = tables.jobs.c, tables.groups.c
        # Their numbers are used, and nothing but their rows says so.
        may_come = sa.exists().where(g.name == c.group_key, g.next_position <= c.position)
        expired = (
            sa.select(c.seq)
            .where(
                c.final_state == sa.bindparam("final", type_=sa.Text),
                c.finished_at < sa.bindparam("before", type_=UtcDateTime),
                c.position.is_(None) | ~may_come,
            )
            .order_by(c.finished_at)
            .limit(sa.bindparam("limit", type_=sa.Integer))
            .with_for_update(skip_locked=True)
            .cte("expired")
        )
        self._jobs = sa.delete(tables.jobs).where(c.seq.in_(sa.select(expired.c.seq))).returning(c.id)
        ids = sa.select(database.dialect.rows({"job_id": JOB_ID}).c.job_id)
        self._others = [sa.delete(table).where(table.c.job_id.in_(ids)) for table in (tables.payloads, tables.attempts)]

    async def prune(self, retention: Retention, limit: int, now: datetime) -> int:
        """Delete up to ``limit`` rows; returns how many."""
        pruned = 0
        for state, before in expiries(retention, now):
            while pruned < limit:
                wanted = min(BATCH, limit - pruned)
                parameters = {"final": state.value, "before": before, "limit": wanted}
                count = await self._database.write(partial(self._delete, parameters))
                pruned += count
                if count < wanted:
                    break
        return pruned

    async def _delete(self, parameters: Mapping[str, Any], connection: AsyncConnection) -> int:
        ids = list((await connection.execute(self._jobs, parameters)).scalars())
        if ids:
            batch = {"batch": encode_column("job_id", ids)}
            for statement in self._others:
                await connection.execute(statement, batch)
        return len(ids)


def expiries(retention: Retention, now: datetime) -> list[tuple[JobState, datetime]]:
    """Each final state that does not stay for ever, and the time before which its rows go."""
    kept = {
        JobState.SUCCEEDED: retention.succeeded,
        JobState.FAILED: retention.failed,
        JobState.CANCELLED: retention.cancelled,
        JobState.SUPERSEDED: retention.superseded,
    }
    return [(state, now - time) for state, time in kept.items() if time is not None]
