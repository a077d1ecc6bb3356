"""A process of its own that uses a store: ``python -m tests.conformance.store.store_process URL TABLE COUNT``.

Opens the store, registers, says "ready" and waits for a line. Then ``COUNT`` jobs live, one after the other:
insert, mark, claim, settle. Prints the errors that it met, one a line.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta

from jq_actors.clock import SystemClock
from jq_actors.events import Events, StoreLost
from jq_actors.model.claim_rules import Verdict
from jq_actors.model.outcome import Succeeded
from jq_actors.store.records import ClaimRequest, Leases, Settlement
from jq_actors.store.sql import SqlStore

from .stores import another_me, new_job

clock = SystemClock()


async def run(url: str, jobs_table: str, count: int) -> None:
    events = Events()
    events.subscribe(StoreLost, lambda event: print(event.reason, flush=True))
    store = SqlStore(url, jobs_table=jobs_table, leases=Leases(), clock=clock, events=events)
    await store.open()
    await store.register(another_me(), ["mail"], timedelta(seconds=30))
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    for _ in range(count):
        await live(store)
    await store.leave()
    await store.close()


async def live(store: SqlStore) -> None:
    job = new_job()
    await store.insert([job], publish_lease=timedelta(seconds=30))
    await store.mark_published([(job.id, 1)])
    token = clock.random_bits(63)
    claim = await store.claim(ClaimRequest(job.id, 1, token, True, job))
    now = store.now()
    written = (await store.settle(Settlement(job.id, token, Succeeded(), now, now))).written
    if claim.verdict is not Verdict.GRANT or not written:
        print(f"job {job.id}: {claim.verdict}, settled: {written}", flush=True)


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], sys.argv[2], int(sys.argv[3])))
