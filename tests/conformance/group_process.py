"""A process of its own that runs jobs of a group: ``python -m tests.conformance.group_process URL TABLE GROUP``.

Reads the ids of the jobs, as JSON, and asks by a delivery of each, again and again, until all have ended.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from datetime import timedelta

from jq_actors.clock import SystemClock
from jq_actors.events import Events
from jq_actors.job import JobId
from jq_actors.outcome import Succeeded
from jq_actors.protocol import Verdict
from jq_actors.store.records import Leases, Settlement
from jq_actors.store.sql import SqlStore

from .stores import another_me, new_job
from .turns import asks, started


async def run(url: str, jobs_table: str, group: str, job_ids: list[JobId]) -> None:
    store = SqlStore(url, jobs_table=jobs_table, leases=Leases(), clock=SystemClock(), events=Events())
    await store.open()
    await store.register(another_me(), ["mail"], timedelta(seconds=30))
    open_ = [replace(new_job(job_id), group=group) for job_id in job_ids]
    while open_:
        for job in tuple(open_):
            request = asks(job)
            answer = await store.claim(request)
            if answer.verdict is Verdict.DROP_FINAL:
                open_.remove(job)
            if answer.verdict is not Verdict.GRANT:
                continue
            began = store.now()
            await asyncio.sleep(0.002)
            ended = store.now()
            if not await store.settle(
                Settlement(started(request, answer), request.run_token, Succeeded(), began, ended)
            ):
                print(f"{job.id}: its run was lost", flush=True)
    await store.leave()
    await store.close()


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.stdin.read())))
