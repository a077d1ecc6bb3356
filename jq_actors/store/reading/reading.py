"""Reading jobs: one with its attempts, pages by keyset, counts."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.model.job import Attempt, Job, JobId, JobState, Place, is_job_id
from jq_actors.store.database.database import Database
from jq_actors.store.records import JobEnd, JobFilter, JobPage
from jq_actors.store.tables import JOB_ID, Tables, group_order

from .cursors import decode_cursor, encode_cursor
from .places import Places

Row = sa.Row[Any]

CURSOR = "seq"
"""The kind of its pages' cursors."""
MAX_ATTEMPTS = 100
"""The most runs of a job that are read: about as many as are kept (`OldRuns`)."""


class Reading:
    """Reads jobs. It locks nothing."""

    def __init__(self, database: Database, tables: Tables, places: Places) -> None:
        self._database, self._tables, self._places = database, tables, places
        self._end = _end(tables)

    async def get(self, job_id: JobId, now: datetime) -> Job | None:
        """Return a job with its newest attempts; ``None``: there is no such job."""
        return await self._database.read(lambda c: self._get(c, job_id, now)) if is_job_id(job_id) else None

    async def end_of(self, job_id: JobId) -> JobEnd | None:
        """Read a job's state and, once it has ended, its result or error; ``None``: no such job."""
        if not is_job_id(job_id):
            return None
        rows = await self._database.read(lambda c: c.execute(self._end, {"job_id": job_id}))
        row = rows.one_or_none()
        if row is None:
            return None
        problems: list[str] = []
        result = _result(row.result, problems)
        state = JobState(row.state)
        return JobEnd(state, _reason(row, problems), result, _error(row, state), _traceback(row, state))

    async def find(self, where: JobFilter, limit: int, after: str | None) -> JobPage:
        """Return a page of up to ``limit`` jobs, newest first, that begins after the cursor ``after``."""
        before = None if after is None else _seq_in(after)
        return await self._database.read(lambda c: self._find(c, where, limit, before))

    async def first_of_group(self, group: str, limit: int, now: datetime) -> list[Job]:
        """Return the group's first ``limit`` jobs that are neither final nor scheduled, in order, with their places."""
        jobs = self._tables.jobs
        first = self._select().where(
            jobs.c.group_key == group, jobs.c.final_state.is_(None), jobs.c.state != JobState.SCHEDULED.value
        )

        async def get(connection: AsyncConnection) -> list[Job]:
            rows = (await connection.execute(first.order_by(group_order(jobs)).limit(limit))).all()
            return [job_of(row, place=await self._places.of(connection, row, now)) for row in rows]

        return await self._database.read(get)

    async def count_by_state(self) -> dict[JobState, int]:
        """Count the rows in each state; reads every row."""
        return await self._database.read(self._count_by_state)

    async def _get(self, connection: AsyncConnection, job_id: JobId, now: datetime) -> Job | None:
        row = (await connection.execute(self._select().where(self._tables.jobs.c.id == job_id))).one_or_none()
        if row is None:
            return None
        c = self._tables.attempts.c
        runs = sa.select(c.number, c.worker_id, c.started_at, c.finished_at, c.outcome, c.error)
        newest = runs.where(c.job_id == job_id).order_by(c.started_at.desc(), c.finished_at.desc()).limit(MAX_ATTEMPTS)
        attempts = [Attempt(*run) for run in await connection.execute(newest)]
        return job_of(row, tuple(reversed(attempts)), await self._places.of(connection, row, now))

    async def _find(self, connection: AsyncConnection, where: JobFilter, limit: int, before: int | None) -> JobPage:
        # One more than wanted tells whether there is a next page.
        seqs = self._page(where, limit + 1, before)
        query = self._select().where(self._tables.jobs.c.seq.in_(seqs)).order_by(self._tables.jobs.c.seq.desc())
        rows = (await connection.execute(query)).all()
        jobs = tuple(job_of(row) for row in rows[:limit])
        return JobPage(jobs, encode_cursor(CURSOR, rows[limit - 1].seq) if len(rows) > limit else None)

    async def _count_by_state(self, connection: AsyncConnection) -> dict[JobState, int]:
        state = self._tables.jobs.c.state
        counted = await connection.execute(sa.select(state, sa.func.count()).group_by(state))
        return {JobState(name): count for name, count in counted}

    def _select(self) -> sa.Select[Any]:
        jobs, payloads = self._tables.jobs, self._tables.payloads
        kept = [payloads.c[name] for name in ("body", "result", "error", "traceback")]
        return sa.select(jobs, *kept).outerjoin(payloads, payloads.c.job_id == jobs.c.id)

    def _page(self, where: JobFilter, limit: int, before: int | None) -> sa.Select[int]:
        c = self._tables.jobs.c
        conditions = [
            column == wanted
            for column, wanted in ((c.actor, where.actor), (c.queue, where.queue), (c.group_key, where.group))
            if wanted is not None
        ]
        if where.tags:
            conditions.append(self._database.dialect.has_tags(c.tags, where.tags))
        if before is not None:
            conditions.append(c.seq < before)
        # A page of each shelf by its own index, then the newest of all: no index gives several states in the
        # order of `seq`.
        pages = [
            sa.select(c.seq).where(*conditions, shelf).order_by(c.seq.desc()).limit(limit).subquery()
            for shelf in self._shelves(where.states)
        ]
        union = sa.union_all(*(sa.select(page.c.seq) for page in pages)).subquery()
        return sa.select(union.c.seq).order_by(union.c.seq.desc()).limit(limit)

    def _shelves(self, states: frozenset[JobState]) -> list[sa.ColumnElement[bool]]:
        c = self._tables.jobs.c
        if not states:
            return [sa.true()]
        shelves = [c.final_state == state.value for state in states if state.is_final]
        unfinished = [state.value for state in states if not state.is_final]
        if unfinished:
            shelves.append(c.final_state.is_(None) & c.state.in_(unfinished))
        return shelves


def _seq_in(cursor: str) -> int:
    number = decode_cursor(CURSOR, cursor) or ""
    if not number.isdecimal() or int(number) >= 1 << 63:
        raise ValueError(f"{cursor!r} is not a cursor of a page of jobs.")
    return int(number)


def job_of(row: Row, attempts: tuple[Attempt, ...] = (), place: Place | None = None) -> Job:
    """The job in ``row``. What cannot be decoded is left empty, and ``reason`` says so: no page breaks (A42)."""
    problems: list[str] = []
    args, kwargs = _arguments(row.body, problems)
    result = _result(row.result, problems)
    state = JobState(row.state)
    return Job(
        id=JobId(row.id),
        actor=row.actor,
        queue=row.queue,
        state=state,
        group=row.group_key,
        position=row.position,
        priority=row.priority,
        tags=tuple(row.tags),
        dispatch=row.dispatch,
        attempt=row.attempt,
        crashes=row.crashes,
        args=args,
        kwargs=kwargs,
        reason=_reason(row, problems),
        result=result,
        error=_error(row, state),
        traceback=_traceback(row, state),
        worker_id=row.worker_id,
        enqueued_at=row.enqueued_at,
        due_at=row.due_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        attempts=attempts,
        place=place,
    )


def _end(tables: Tables) -> sa.Select[Any]:
    jobs, payloads = tables.jobs, tables.payloads
    has_ended = (payloads.c.job_id == jobs.c.id) & jobs.c.final_state.is_not(None)
    kept = [payloads.c[name] for name in ("result", "error", "traceback")]
    of_this = jobs.c.id == sa.bindparam("job_id", type_=JOB_ID)
    return sa.select(jobs.c.state, jobs.c.reason, *kept).outerjoin(payloads, has_ended).where(of_this)


def _reason(row: Row, problems: list[str]) -> str | None:
    return "; ".join([*([row.reason] if row.reason else []), *problems]) or None


def _error(row: Row, state: JobState) -> str | None:
    # The error of an earlier attempt stays in the payload, but does not explain the job's state.
    return None if state is JobState.SUCCEEDED else row.error


def _traceback(row: Row, state: JobState) -> str | None:
    return None if state is JobState.SUCCEEDED else row.traceback or None


def _arguments(body: str | None, problems: list[str]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    try:
        command = json.loads(body or "")
        return tuple(command["args"]), dict(command["kwargs"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        problems.append(f"its arguments cannot be read ({type(error).__name__}: {error})")
        return (), {}


def _result(result: str | None, problems: list[str]) -> Any:
    try:
        return None if result is None else json.loads(result)
    except (ValueError, RecursionError) as error:
        problems.append(f"its result cannot be read ({error})")
        return None
