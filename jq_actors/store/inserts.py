"""New rows: those that producers send, and those that a claim adopts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.errors import StoreError
from jq_actors.job import JobState

from .dialect import Dialect, encode_rows
from .port import ClaimRequest, NewJob
from .tables import Tables

CHUNK = 500
"""Rows of one statement; in between, the loop does other things."""

Insertion = tuple[Sequence[NewJob], timedelta | None]
"""Jobs, and how long their producer has to publish them (`JobStore.insert`)."""
Row = dict[str, Any]


class Inserts:
    """Writes new jobs with their payloads."""

    def __init__(self, tables: Tables, dialect: Dialect) -> None:
        jobs, payloads = tables.jobs, tables.payloads
        given = [column for column in jobs.columns if column is not jobs.c.seq]
        batch = dialect.rows({"n": sa.Integer(), **{column.name: column.type for column in given}})
        self._insert_jobs = (
            dialect.insert(jobs)
            .from_select(
                [column.name for column in given],
                # `seq` is given in the order of the rows: that is the order in which they were sent.
                sa.select(*(batch.c[column.name] for column in given)).where(sa.true()).order_by(batch.c.n),
            )
            .on_conflict_do_nothing(index_elements=[jobs.c.id])
            .returning(jobs.c.id)
        )
        bodies = dialect.rows({"job_id": payloads.c.job_id.type, "body": payloads.c.body.type})
        self._insert_payloads = sa.insert(payloads).from_select(
            ["job_id", "body"], sa.select(bodies.c.job_id, bodies.c.body)
        )

    async def insert(self, connection: AsyncConnection, insertions: Sequence[Insertion], now: datetime) -> None:
        """Insert the jobs of ``insertions``, in their order.

        Raises:
          StoreError: one of them exists; names it.
        """
        jobs = [(job, sent_row(job, now, lease)) for jobs, lease in insertions for job in jobs]
        for start in range(0, len(jobs), CHUNK):
            chunk = jobs[start : start + CHUNK]
            made = await self._insert_rows(connection, [row for _, row in chunk])
            if len(made) < len(chunk):
                twice = next((job.id for job, _ in chunk if job.id not in made), chunk[0][0].id)
                raise StoreError(f"A job {twice} exists already.")
            await self._insert_bodies(connection, [job for job, _ in chunk])

    async def adopt(
        self, connection: AsyncConnection, requests: Sequence[ClaimRequest], worker_id: str, now: datetime
    ) -> set[str]:
        """Insert running rows for deliveries of different jobs that have none.

        Returns the ids of those that were inserted; the others have a row meanwhile.
        """
        made = await self._insert_rows(connection, [adopted_row(request, worker_id, now) for request in requests])
        await self._insert_bodies(connection, [_adopted(request) for request in requests if request.job_id in made])
        return made

    async def _insert_rows(self, connection: AsyncConnection, rows: Sequence[Row]) -> set[str]:
        batch = encode_rows([{"n": number, **row} for number, row in enumerate(rows)])
        return set((await connection.execute(self._insert_jobs, {"batch": batch})).scalars())

    async def _insert_bodies(self, connection: AsyncConnection, jobs: Sequence[NewJob]) -> None:
        if jobs:
            batch = encode_rows([{"job_id": job.id, "body": _text(job.body)} for job in jobs])
            await connection.execute(self._insert_payloads, {"batch": batch})


def sent_row(job: NewJob, now: datetime, publish_lease: timedelta | None) -> Row:
    """The row of a job that was sent; ``publish_lease``: how long its producer has to publish it."""
    # By the row's own times, as its producer saw them: it publishes what was due then, and leaves the rest to us.
    scheduled = job.due_at > job.enqueued_at
    row = _row(job, JobState.SCHEDULED if scheduled else JobState.QUEUED, dispatch=1)
    if scheduled:
        row["wake_at"] = job.due_at
    else:
        row["publish_at"] = job.due_at if publish_lease is None else now + publish_lease
    return row


def adopted_row(request: ClaimRequest, worker_id: str, now: datetime) -> Row:
    """The row of a job that its delivery brought, and that runs from now on."""
    job = _adopted(request)
    return _row(job, JobState.RUNNING, request.dispatch) | {
        "due_at": min(job.due_at, now),
        "published_at": now,
        "attempt": 1,
        "run_token": request.run_token,
        "worker_id": worker_id,
        "started_at": now,
    }


def _adopted(request: ClaimRequest) -> NewJob:
    assert request.adopt is not None, "only what was not promised is adopted"
    return request.adopt


def _row(job: NewJob, state: JobState, dispatch: int) -> Row:
    return {
        "id": job.id,
        "actor": job.actor,
        "queue": job.queue,
        "group_key": job.group,
        "priority": job.priority,
        "state": state,
        "dispatch": dispatch,
        "redispatches": 0,
        "due_at": job.due_at,
        "attempt": 0,
        "crashes": 0,
        "enqueued_at": job.enqueued_at,
        "tags": job.tags,
    }


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        # A foreign producer may write JSON in UTF-16, which json reads; the table holds text.
        return json.dumps(json.loads(body), separators=(",", ":"))
