"""New rows: of jobs that producers send, and of jobs that a claim adopts."""

from __future__ import annotations

import json
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.errors import NotStoredError, StoreError
from jq_actors.model.claim_rules import Verdict
from jq_actors.model.job import JobId, JobState
from jq_actors.model.turn_rules import BEHIND
from jq_actors.store.database.dialect import Dialect, encode_rows
from jq_actors.store.groups.rows import GroupRows, LockedGroups
from jq_actors.store.groups.turns import GroupTurns
from jq_actors.store.records import Claim, ClaimRequest, Dispatch, NewJob
from jq_actors.store.tables import NO_PLACE, Tables

from .admission_rules import is_scheduled
from .group_intake import Admission, GroupIntake, by_group

CHUNK = 500
"""How many rows one statement inserts; between statements the loop does other work."""

Insertion = tuple[Sequence[NewJob], timedelta | None]
"""Jobs, and how long their producer has to publish them (`JobStore.insert`)."""
Inserted = list[Dispatch] | NotStoredError
"""The jobs of an insertion that its producer has to publish; or why a group does not take them."""
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class InsertedBatch:
    """The results of insertions."""

    each: list[Inserted]
    released: int
    """Jobs of numbered groups whose turn has come with them: a relay publishes these."""


class Inserts:
    """Writes new jobs with their payloads."""

    def __init__(
        self, tables: Tables, dialect: Dialect, rows: GroupRows, intake: GroupIntake, turns: GroupTurns
    ) -> None:
        self._rows, self._intake, self._turns = rows, intake, turns
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

    async def insert(
        self,
        connection: AsyncConnection,
        insertions: Sequence[Insertion],
        now: datetime,
        *,
        may_be_committed: bool = False,
    ) -> InsertedBatch:
        """Insert the jobs of ``insertions``, in their order.

        ``may_be_committed``: an earlier try may have inserted all of them, so jobs may exist. Not for jobs of groups.

        Raises:
          StoreError: one of them exists; names it.
        """
        names = by_group(job for jobs, _ in insertions for job in jobs)
        # Before the first row, so that the numbers of a group's rows have the order of their commits.
        groups = await self._rows.lock(connection, names, now)
        admission = await self._intake.admit(connection, [jobs for jobs, _ in insertions], groups)
        jobs = [
            (job, sent_row(job, now, lease, waits=job.id in admission.waiting))
            for index, (jobs, lease) in enumerate(insertions)
            if index not in admission.refused
            for job in jobs
        ]
        for start in range(0, len(jobs), CHUNK):
            chunk = jobs[start : start + CHUNK]
            made = await self._insert_rows(connection, [row for _, row in chunk])
            if len(made) < len(chunk) and not may_be_committed:
                twice = next((job.id for job, _ in chunk if job.id not in made), chunk[0][0].id)
                raise StoreError(f"A job {twice} exists already.")
            await self._insert_bodies(connection, [job for job, _ in chunk if job.id in made])
        # A relay publishes the jobs that this releases: insertions of one batch may have different leases, or none.
        given = await self._turns.give(connection, groups, now, names=admission.numbered)
        return InsertedBatch(
            [
                admission.refused.get(index) or dispatches_of(insertion, admission.waiting)
                for index, insertion in enumerate(insertions)
            ],
            given.count,
        )

    async def adopt(
        self,
        connection: AsyncConnection,
        requests: Sequence[ClaimRequest],
        groups: LockedGroups,
        worker_id: str,
        now: datetime,
    ) -> dict[int, Claim]:
        """Insert rows for deliveries of different jobs that have none: as running, or in a group when it is their turn.

        ``groups`` are theirs, locked. Returns the answers to inserted ones by run token, except for jobs of groups that
        may be granted now. A job without an answer got a row from somebody else meanwhile.

        Raises:
          StoreError: one has a position that its group cannot take.
        """
        # Limits apply to producers of ours: these jobs were accepted when their broker took them.
        arrived = [[replace(job, due_at=min(job.due_at, now))] for job in map(_adopted, requests)]
        admission = await self._intake.admit(connection, arrived, groups, limited=False)
        for refusal in admission.refused.values():
            raise StoreError(str(refusal))
        rows = [adopted_row(r, worker_id, now, waits=r.job_id in admission.waiting) for r in requests]
        made = await self._insert_rows(connection, rows)
        for request in requests:
            group = _adopted(request).group
            if group is not None and request.job_id not in made:
                # Another worker was quicker, and has counted the job.
                is_waiting = request.job_id in admission.waiting
                groups.add(group, held=-int(not is_waiting), waiting=-int(is_waiting))
        await self._insert_bodies(connection, [_adopted(request) for request in requests if request.job_id in made])
        await self._turns.give(connection, groups, now, names=admission.numbered)
        return {
            request.run_token: answer
            for request in requests
            if request.job_id in made and (answer := _answer(request, admission)) is not None
        }

    async def _insert_rows(self, connection: AsyncConnection, rows: Sequence[Row]) -> set[str]:
        batch = encode_rows([{"n": number, **row} for number, row in enumerate(rows)])
        return set((await connection.execute(self._insert_jobs, {"batch": batch})).scalars())

    async def _insert_bodies(self, connection: AsyncConnection, jobs: Sequence[NewJob]) -> None:
        if jobs:
            batch = encode_rows([{"job_id": job.id, "body": text_of(job.body)} for job in jobs])
            await connection.execute(self._insert_payloads, {"batch": batch})


def dispatches_of(insertion: Insertion, waiting: Container[JobId] = ()) -> list[Dispatch]:
    """The jobs of a stored ``insertion`` that its producer has to publish. ``waiting``: jobs that wait in groups."""
    jobs, lease = insertion
    if lease is None:
        return []
    return [
        Dispatch(job.id, 1, job.queue, job.body, job.priority, job.group)
        for job in jobs
        if job.id not in waiting and not is_scheduled(job)
    ]


def sent_row(job: NewJob, now: datetime, publish_lease: timedelta | None, *, waits: bool = False) -> Row:
    """The row of a job that was sent.

    ``publish_lease``: how long its producer has to publish it. ``waits``: it has no place in its group yet.
    """
    if is_scheduled(job):
        row = _row(job, JobState.SCHEDULED, dispatch=1) | {"wake_at": job.due_at}
        if job.group is not None and job.position is None:
            row["order_key"] = NO_PLACE
        return row
    if waits:
        return _row(job, JobState.WAITING, dispatch=1) | {"parked_at": now, "reason": BEHIND}
    return _row(job, JobState.QUEUED, dispatch=1) | {
        "has_place": job.group is not None,
        "publish_at": job.due_at if publish_lease is None else now + publish_lease,
    }


def adopted_row(request: ClaimRequest, worker_id: str, now: datetime, *, waits: bool = False) -> Row:
    """The row of a job that came with its delivery: it runs from now on, or in a group when it is its turn."""
    job = _adopted(request)
    arrived: Row = {"due_at": min(job.due_at, now)}
    if waits:
        return _row(job, JobState.WAITING, request.dispatch) | arrived | {"parked_at": now, "reason": BEHIND}
    arrived["published_at"] = now
    if job.group is not None:
        return _row(job, JobState.QUEUED, request.dispatch) | arrived | {"has_place": True}
    return (
        _row(job, JobState.RUNNING, request.dispatch)
        | arrived
        | {
            "attempt": 1,
            "run_token": request.run_token,
            "worker_id": worker_id,
            "started_at": now,
        }
    )


def _answer(request: ClaimRequest, admission: Admission) -> Claim | None:
    group = _adopted(request).group
    if group is None:
        return Claim(Verdict.GRANT, attempt=1)
    return Claim(Verdict.PARK, group=group, reason=BEHIND) if request.job_id in admission.waiting else None


def _adopted(request: ClaimRequest) -> NewJob:
    assert request.adopt is not None, "only what was not promised is adopted"
    return request.adopt


def _row(job: NewJob, state: JobState, dispatch: int) -> Row:
    return {
        "id": job.id,
        "actor": job.actor,
        "queue": job.queue,
        "group_key": job.group,
        "position": job.position,
        "order_key": job.position,
        "priority": job.priority,
        "state": state,
        "dispatch": dispatch,
        "redispatches": 0,
        "due_at": job.due_at,
        "attempt": 0,
        "crashes": 0,
        "enqueued_at": job.enqueued_at,
        "tags": job.tags,
        "has_place": False,
    }


def text_of(body: bytes) -> str:
    """``body`` as the table stores it."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        # A foreign producer may write JSON in UTF-16, which json reads; the table holds text.
        return json.dumps(json.loads(body), separators=(",", ":"))
