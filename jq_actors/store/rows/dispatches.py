"""Rows as dispatches: how a row becomes one, which columns are read, and the body that is published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.model.job import JobId, JobState
from jq_actors.store.database.dialect import NOW, Dialect, encode_column
from jq_actors.store.records import Dispatch
from jq_actors.store.tables import JOB_ID, Tables

Row = sa.Row[Any]


class Bodies:
    """Reads the bodies of rows that are to be published, or to run."""

    def __init__(self, tables: Tables, dialect: Dialect) -> None:
        ids, payloads = dialect.rows({"job_id": JOB_ID}), tables.payloads.c
        self._read = sa.select(payloads.job_id, payloads.body).join(ids, ids.c.job_id == payloads.job_id)
        # Somebody deleted the payload by hand: such a row must not hold up the others at every check.
        self._set_aside = (
            sa.update(tables.jobs)
            .where(tables.jobs.c.id == ids.c.job_id)
            .values(
                state=JobState.UNHANDLED.value,
                publish_at=None,
                wake_at=None,
                parked_at=None,
                reason="its payload is gone",
            )
        )

    async def of(self, connection: AsyncConnection, job_ids: Sequence[str]) -> dict[str, bytes]:
        """The bodies of these jobs. Jobs without one become unhandled, and are not in the answer."""
        if not job_ids:
            return {}
        rows = await connection.execute(self._read, {"batch": encode_column("job_id", job_ids)})
        bodies = {row.job_id: row.body.encode() for row in rows}
        if len(bodies) < len(set(job_ids)):
            bodiless = [job_id for job_id in job_ids if job_id not in bodies]
            await connection.execute(self._set_aside, {"batch": encode_column("job_id", bodiless)})
        return bodies


def dispatch_columns(jobs: sa.Table) -> list[sa.ColumnElement[Any]]:
    """The columns that a statement returns of rows that are to be published (`dispatches_of`)."""
    c = jobs.c
    return [c.seq, c.id, c.dispatch, c.queue, c.priority, c.group_key, c.order_key, c.due_at]


def dispatches_of(rows: Sequence[Row], bodies: Mapping[str, bytes]) -> list[Dispatch]:
    """The dispatches of ``rows`` (of `dispatch_columns`), in their order, without the rows whose bodies are gone."""
    return [
        Dispatch(JobId(row.id), row.dispatch, row.queue, bodies[row.id], row.priority, row.group_key)
        for row in rows
        if row.id in bodies
    ]


def queued_anew(jobs: sa.Table) -> dict[str, Any]:
    """The values of a queued row, published from ``now`` on as a new dispatch: older copies become stale."""
    return {
        "state": JobState.QUEUED.value,
        "dispatch": jobs.c.dispatch + 1,
        "published_at": None,
        "publish_at": NOW,
        "lane_owner": None,
        "redispatches": 0,
        "reason": None,
        "wake_at": None,
        "parked_at": None,
    }
