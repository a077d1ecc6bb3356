"""A process of its own that runs jobs of groups: ``python -m tests.conformance.store.group_process URL TABLE``.

Reads the ids of the jobs, as JSON, and runs what it finds queued, again and again, until all have ended. What follows
in a group it takes at once, now and then; else it is for whoever finds it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.clock import SystemClock
from jq_actors.events import Events, StoreLost
from jq_actors.model.claim_rules import Verdict
from jq_actors.model.job import JobId
from jq_actors.model.outcome import Succeeded
from jq_actors.store.database.dialect import encode_rows
from jq_actors.store.records import Chain, ClaimRequest, Leases, Settlement
from jq_actors.store.sql import SqlStore
from jq_actors.store.tables import JOB_ID, tables_for

from .stores import another_me
from .turns import FITS, SLOT

clock = SystemClock()


async def run(url: str, jobs_table: str, job_ids: Sequence[JobId]) -> None:
    events = Events()
    events.subscribe(StoreLost, lambda event: print(event.reason, flush=True))
    store = SqlStore(url, jobs_table=jobs_table, leases=Leases(), clock=clock, events=events)
    store.fits = FITS
    await store.open()
    await store.register(another_me(), ["mail"], timedelta(seconds=30))
    looks = _Looks(store, jobs_table, job_ids)
    while (queued := await looks.queued()) is not None:
        await asyncio.gather(*(_live(store, job_id, dispatch) for job_id, dispatch in queued))
    await store.leave()
    await store.close()


class _Looks:
    """Looks at rows as a broker would deliver them: what is queued."""

    def __init__(self, store: SqlStore, jobs_table: str, job_ids: Sequence[JobId]) -> None:
        self._store = store
        jobs, ids = tables_for(jobs_table).jobs, store._db.dialect.rows({"id": JOB_ID})
        columns = (jobs.c.id, jobs.c.dispatch, jobs.c.state)
        self._query: sa.Select[Any] = (
            sa.select(*columns).join(ids, ids.c.id == jobs.c.id).where(jobs.c.final_state.is_(None))
        )
        self._parameters = {"batch": encode_rows([{"id": job_id} for job_id in job_ids])}

    async def queued(self) -> list[tuple[JobId, int]] | None:
        """The dispatches that are queued; ``None``: all jobs have ended."""

        async def look(connection: AsyncConnection) -> Sequence[sa.Row[Any]]:
            found: Sequence[sa.Row[Any]] = (await connection.execute(self._query, self._parameters)).all()
            return found

        rows = await self._store._db.read(look)
        return [(JobId(row.id), row.dispatch) for row in rows if row.state == "queued"] if rows else None


async def _live(store: SqlStore, job_id: JobId, dispatch: int) -> None:
    request = ClaimRequest(job_id, dispatch, clock.random_bits(63), True, None)
    answer = await store.claim(request)
    if answer.verdict is not Verdict.GRANT:
        return
    token, group = request.run_token, answer.group
    while True:
        began = store.now()
        await asyncio.sleep(0.002)
        chain = Chain(clock.random_bits(63), SLOT) if clock.random() < 0.7 else None
        settlement = Settlement(job_id, token, Succeeded(), began, store.now(), group=group, chain=chain)
        settled = await store.settle(settlement)
        if not settled.written:
            print(f"{job_id}: its run was lost", flush=True)
        if settled.next is None:
            return
        job_id, token = settled.next.job_id, settled.next.run_token


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], sys.argv[2], json.loads(sys.stdin.read())))
