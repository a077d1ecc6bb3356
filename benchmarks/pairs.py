"""`python -m benchmarks.pairs`: what claim and settlement of a job cost, without broker, runtime and actors.

One process against a private PostgreSQL that waits for its disk, as one in use does. Without groups, with many groups
in flight, and with one group, whose jobs wait for each other: there the rate is what the round trips leave.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated

import psutil
import typer
import uvloop

from jq_actors.clock import SystemClock
from jq_actors.events import Events, StoreFlushed
from jq_actors.job import JobId, new_job_ids
from jq_actors.outcome import Succeeded
from jq_actors.protocol import Verdict
from jq_actors.store import migrate
from jq_actors.store.records import ClaimRequest, Leases, NewJob, Settlement
from jq_actors.store.sql import SqlStore
from jq_actors.worker import identify
from tests.support.postgres import PrivatePostgres

from .alone import alone
from .report import table

TABLE = "orm_jobs"
clock = SystemClock()


@dataclass(slots=True)
class Pairs:
    """What one measurement saw."""

    title: str
    count: int = 0
    seconds: float = 0.0
    client: float = 0.0
    """Seconds of this process's CPU; ``server``: of PostgreSQL's."""
    server: float = 0.0
    flushes: dict[str, list[int]] = field(default_factory=dict)
    """The rows of each, by kind."""

    def row(self) -> list[str]:
        """For the table."""
        per_job = 1e6 / self.count
        rows = " / ".join(f"{sum(self.flushes[kind]) / len(self.flushes[kind]):.0f}" for kind in ("claim", "settle"))
        rate = f"{self.count / self.seconds:,.0f}"
        return [self.title, rate, f"{self.client * per_job:.0f}", f"{self.server * per_job:.0f}", rows]


def main(
    jobs: Annotated[int, typer.Option(min=200, help="Jobs of each measurement with many in flight.")] = 10_000,
    serial: Annotated[int, typer.Option(min=10, help="Jobs of the one group.")] = 500,
    in_flight: Annotated[int, typer.Option(min=1, help="Jobs, or groups, at once.")] = 200,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    driver: Annotated[str, typer.Option(help="asyncpg or psycopg")] = "asyncpg",
) -> None:
    """Measure by turns, and print a line for each measurement."""
    with alone():
        # Else the tests' own settings: there a commit does not wait.
        server = PrivatePostgres(durable=True)
        try:
            server.start()
            url = server.create_database().replace("asyncpg", driver)
            migrate.upgrade(url, TABLE)
            lines: list[list[str]] = []
            for _ in range(rounds):
                for title, count, groups in (
                    ("no groups", jobs, 0),
                    (f"{in_flight} groups", jobs, in_flight),
                    ("one group", serial, 1),
                ):
                    print(title, file=sys.stderr, flush=True)
                    pairs = uvloop.run(_measure(server, url, Pairs(title, count), groups, in_flight))
                    lines.append(pairs.row())
            head = ["", "pairs/s", "client CPU µs", "server CPU µs", "rows a claim / settlement"]
            print(*table(head, sorted(lines)), sep="\n")
        finally:
            server.close()


async def _measure(server: PrivatePostgres, url: str, pairs: Pairs, groups: int, in_flight: int) -> Pairs:
    async with _worker(url, pairs) as store:
        lanes = groups or in_flight
        ids = new_job_ids(clock, pairs.count)
        names = [f"{pairs.title} {ids[0]} {n}" if groups else None for n in range(lanes)]
        jobs = [_job(job_id, names[n % lanes]) for n, job_id in enumerate(ids)]
        for start in range(0, len(jobs), 2000):
            await store.insert(jobs[start : start + 2000], publish_lease=timedelta(hours=1))
        before, began = _server_cpu(server), time.perf_counter()
        own = time.process_time()
        await asyncio.gather(*(_lane(store, jobs[n::lanes]) for n in range(lanes)))
        pairs.seconds = time.perf_counter() - began
        pairs.client = time.process_time() - own
        pairs.server = _server_cpu(server) - before
    return pairs


async def _lane(store: SqlStore, jobs: Sequence[NewJob]) -> None:
    for job in jobs:
        token = clock.random_bits(63)
        claim = await store.claim(ClaimRequest(job.id, 1, token, True, None, job.queue, True, job.group))
        if claim.verdict is not Verdict.GRANT or claim.instead is not None:
            raise AssertionError(f"{job.id} was to be granted: {claim}")
        now = store.now()
        if not await store.settle(Settlement(job.id, token, Succeeded(), now, now)):
            raise AssertionError(f"the outcome of {job.id} was to be written")


@asynccontextmanager
async def _worker(url: str, pairs: Pairs) -> AsyncIterator[SqlStore]:
    events = Events()
    events.subscribe(StoreFlushed, lambda event: pairs.flushes.setdefault(event.kind, []).append(event.rows))
    store = SqlStore(url, jobs_table=TABLE, leases=Leases(), clock=clock, events=events)
    await store.open()
    await store.register(identify(clock), ["mail"], timedelta(seconds=300))
    try:
        yield store
    finally:
        await store.leave()
        await store.close()


def _job(job_id: JobId, group: str | None) -> NewJob:
    now = clock.wall()
    return NewJob(job_id, "no_op", "mail", b'{"args":[],"kwargs":{}}', now, now, group=group)


def _server_cpu(server: PrivatePostgres) -> float:
    """Of the server and those of its processes that live now: a connection lives as long as its measurement."""
    parent = psutil.Process(server.pid)
    times = [process.cpu_times() for process in (parent, *parent.children())]
    return sum(each.user + each.system for each in times)


if __name__ == "__main__":
    typer.run(main)
