"""The databases that the store suite runs on, and a way into their tables that is not the store's."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from jq_actors.clock import Clock, SystemClock
from jq_actors.errors import StoreError
from jq_actors.events import Event, Events
from jq_actors.model.claim_rules import Verdict
from jq_actors.model.group_rules import GroupRules
from jq_actors.model.job import Job, JobId, JobState, new_job_ids
from jq_actors.model.outcome import Outcome
from jq_actors.model.worker_identity import WorkerIdentity, identify, process_start
from jq_actors.store.records import Claim, ClaimRequest, Leases, NewJob, Settlement
from jq_actors.store.sql import SqlStore
from jq_actors.store.tables import tables_for
from tests.support.recorder import EventRecorder

KINDS = ["sqlite", "asyncpg", "psycopg"]
TABLE = "orm_jobs"
LEASE = timedelta(seconds=30)
LEASES = Leases(worker=timedelta())
"""A lease that is over is believed at once; see `Workers.renewed`."""

clock = SystemClock()
ME = identify(clock)
"""This process; `another_me` is one more worker in it."""


class World:
    """One database with our tables in it, for one test."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.events = Events()
        self.tables = tables_for(TABLE)
        self._engine = create_async_engine(url)
        self._stores: list[SqlStore] = []

    def store(
        self,
        *,
        url: str | None = None,
        leases: Leases | None = None,
        auto_migrate: bool = True,
        clock: Clock = clock,
        pool_size: int = 2,
        jobs_table: str = TABLE,
    ) -> SqlStore:
        """A store that is not open yet."""
        store = SqlStore(
            url or self.url,
            jobs_table=jobs_table,
            leases=leases or LEASES,
            clock=clock,
            events=self.events,
            auto_migrate=auto_migrate,
            pool_size=pool_size,
        )
        self._stores.append(store)
        return store

    @property
    def rules(self) -> GroupRules:
        """Those that the first of its stores has now."""
        return self._stores[0].rules if self._stores else GroupRules()

    async def worker(self, *, leases: Leases | None = None, identity: WorkerIdentity | None = None) -> SqlStore:
        """An open store of a registered worker."""
        store = self.store(leases=leases)
        await store.open()
        await store.register(identity or another_me(), ["mail"], LEASE)
        return store

    def record(self, *kinds: type[Event]) -> EventRecorder:
        """What the stores of this world emit."""
        return EventRecorder(self.events, *kinds)

    async def execute(self, statement: sa.Executable) -> list[sa.Row[Any]]:
        """Do something behind the store's back."""
        async with self._engine.begin() as connection:
            result = await connection.execute(statement)
            return list(result.all()) if result.returns_rows else []

    def transaction(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """One behind the store's back."""
        return self._engine.begin()

    async def row(self, job_id: JobId) -> sa.Row[Any] | None:
        """The hot row of a job."""
        rows = await self.execute(sa.select(self.tables.jobs).where(self.tables.jobs.c.id == job_id))
        return rows[0] if rows else None

    async def the_row(self, job_id: JobId) -> sa.Row[Any]:
        """The hot row of a job that surely has one."""
        row = await self.row(job_id)
        assert row is not None
        return row

    async def change(self, job_id: JobId, **values: Any) -> None:
        """Set columns of a job's row."""
        jobs = self.tables.jobs
        await self.execute(sa.update(jobs).where(jobs.c.id == job_id).values(**values))

    async def add_worker(
        self,
        worker_id: str,
        lease_until: datetime,
        *,
        host: str = "elsewhere/1",
        pid: int = 1,
        process_started: float = 0.0,
    ) -> None:
        """A worker of whom only the row is there."""
        row = {
            "id": worker_id,
            "name": worker_id,
            "host": host,
            "pid": pid,
            "process_started": process_started,
            "lease_until": lease_until,
            "heartbeat_at": lease_until,
            "queues": [],
            "held": {},
            "version": "0",
        }
        await self.execute(sa.insert(self.tables.workers).values(**row))

    async def close(self) -> None:
        """Close every store."""
        for store in self._stores:
            await store.close()
        await self._engine.dispose()


def emptied(url: str) -> str:
    """The PostgreSQL database of ``url``, with its tables empty."""
    tables = tables_for(TABLE).metadata.sorted_tables
    names = sql.SQL(", ").join(sql.Identifier(table.name) for table in tables)
    with psycopg.connect(url.replace("+asyncpg", ""), autocommit=True) as session:
        session.execute(sql.SQL("TRUNCATE {} RESTART IDENTITY").format(names))
    return url


@asynccontextmanager
async def world_on(url: str) -> AsyncIterator[World]:
    """A world, closed at the end."""
    world = World(url)
    try:
        yield world
    finally:
        await world.close()


# -- what tests send, claim and settle


def another_me() -> WorkerIdentity:
    return replace(ME, id=f"{clock.random_bits(64):016x}")


@contextmanager
def another_process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until it is killed."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


@asynccontextmanager
async def worker_in_another_process(worker_id: str) -> AsyncIterator[WorkerIdentity]:
    """The identity of a worker on this machine whose process can be seen to live, until it is killed."""
    with another_process() as process:
        started = await asyncio.to_thread(process_start, process.pid)
        assert started is not None
        yield replace(ME, id=worker_id, pid=process.pid, process_started=started)


def ended_pid() -> int:
    """The pid of a process that is no more."""
    with another_process() as process:
        return process.pid


def job_ids(count: int) -> list[JobId]:
    return new_job_ids(clock, count)


def new_job(
    job_id: JobId | None = None,
    *,
    actor: str = "send_mail",
    queue: str = "mail",
    due_in: timedelta = timedelta(),
    body: bytes = b'{"args":[1,"x"],"kwargs":{"y":2}}',
    group: str | None = None,
    priority: int = 0,
    tags: tuple[str, ...] = (),
) -> NewJob:
    now = clock.wall()
    return NewJob(
        id=job_id or job_ids(1)[0],
        actor=actor,
        queue=queue,
        body=body,
        due_at=now + due_in,
        enqueued_at=now,
        group=group,
        priority=priority,
        tags=tags,
    )


async def queued(store: SqlStore, count: int = 1, **values: Any) -> list[NewJob]:
    """Jobs that are queued and leased to their producer."""
    jobs = [new_job(job_id, **values) for job_id in job_ids(count)]
    await store.insert(jobs, publish_lease=timedelta(minutes=1))
    return jobs


async def unpublished(store: SqlStore, count: int = 1, queue: str = "mail") -> list[NewJob]:
    """Jobs that nobody has published or leased."""
    jobs = [new_job(job_id, queue=queue) for job_id in job_ids(count)]
    await store.insert(jobs, publish_lease=None)
    return jobs


def request_of(job: NewJob, *, dispatch: int = 1, promised: bool = True) -> ClaimRequest:
    return ClaimRequest(job.id, dispatch, clock.random_bits(63), promised, job)


async def granted(store: SqlStore, job: NewJob, *, dispatch: int = 1) -> int:
    """Claim ``job``; returns the run token."""
    request = request_of(job, dispatch=dispatch)
    claim = await store.claim(request)
    assert claim.verdict is Verdict.GRANT
    return request.run_token


async def settled(store: SqlStore, job: NewJob, run_token: int, outcome: Outcome, *, republish: bool = False) -> bool:
    now = store.now()
    settlement = Settlement(job.id, run_token, outcome, now, now, republish, group=job.group)
    return (await store.settle(settlement)).written


async def got(store: SqlStore, job: NewJob) -> Job:
    found = await store.get(job.id)
    assert found is not None
    return found


def verdicts(claims: Iterable[Claim]) -> list[Verdict]:
    return [claim.verdict for claim in claims]


def refusals(answers: list[Any]) -> list[StoreError]:
    return [answer for answer in answers if isinstance(answer, StoreError)]


def state_of(row: sa.Row[Any]) -> JobState:
    return JobState(row.state)
