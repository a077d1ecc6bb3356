"""Commands, as they are stored."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.model.job import JobState
from jq_actors.store.database.dialect import Dialect, encode_rows
from jq_actors.store.tables import JOB_ID, Tables


class Bodies:
    """Reads the bodies of rows that are to be published, or to run."""

    def __init__(self, tables: Tables, dialect: Dialect) -> None:
        ids, payloads = dialect.rows({"job_id": JOB_ID}), tables.payloads.c
        self._read = sa.select(payloads.job_id, payloads.body).join(ids, ids.c.job_id == payloads.job_id)
        # Somebody deleted them by hand: such a row must not stop others with each look.
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
        """The bodies of these jobs. Those that have none become unhandled; they are not in the answer."""
        if not job_ids:
            return {}
        batch = encode_rows([{"job_id": job_id} for job_id in job_ids])
        bodies = {row.job_id: row.body.encode() for row in await connection.execute(self._read, {"batch": batch})}
        if len(bodies) < len(set(job_ids)):
            bodiless = [{"job_id": job_id} for job_id in job_ids if job_id not in bodies]
            await connection.execute(self._set_aside, {"batch": encode_rows(bodiless)})
        return bodies
