"""Claims that race, and callers that go away, on every database: each job is granted once, nothing is left behind."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from jq_actors.model.claim_rules import Verdict
from jq_actors.model.job import JobState
from jq_actors.model.outcome import Interrupted
from jq_actors.store.database.dialect import Fault
from tests.support.waiting import eventually

from .locking import somebody_waits
from .stores import World, clock, got, job_ids, new_job, queued, request_of, state_of, verdicts


async def test_marks_and_claims_of_the_same_jobs_never_wait_for_each_other_in_a_circle(
    pg: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server would find that out after a second, in which this process claims nothing."""
    store = await pg.worker()
    faults: list[Fault] = []
    fault_of = store._db.dialect.fault_of

    def told(error: Any) -> Fault:
        faults.append(fault_of(error))
        return faults[-1]

    monkeypatch.setattr(store._db.dialect, "fault_of", told)
    # So many that each one is looked up by its id.
    await store.insert([new_job(job_id) for job_id in job_ids(3000)], publish_lease=None)
    jobs = await queued(store, 3)
    await pg.execute(sa.text("ANALYZE"))
    table = pg.tables.jobs
    async with pg.transaction() as connection:
        await connection.execute(sa.select(table).where(table.c.id == jobs[1].id).with_for_update())
        claims = [asyncio.ensure_future(store.claim(request_of(job))) for job in jobs]
        await somebody_waits(pg, 1)
        mark = asyncio.ensure_future(store.mark_published([(job.id, 1) for job in reversed(jobs)]))
        await somebody_waits(pg, 2)
    assert verdicts(await asyncio.gather(*claims)) == [Verdict.GRANT] * 3
    await mark
    assert faults == []


@pytest.mark.parametrize("loss", ["queued", "lost", "unknown"])
async def test_racing_workers_are_granted_each_job_once(db: World, loss: str) -> None:
    stores = [await db.worker() for _ in range(3)]
    for _ in range(15):
        jobs = [new_job(job_id) for job_id in job_ids(20)]
        if loss != "unknown":
            await stores[0].insert(jobs, publish_lease=timedelta(minutes=1))
        if loss == "lost":
            table = db.tables.jobs
            values = {"state": "running", "run_token": 1, "worker_id": "gone", "started_at": clock.wall()}
            await db.execute(sa.update(table).where(table.c.id.in_([job.id for job in jobs])).values(**values))
        # In different orders, so that batches lock the same rows the other way round.
        orders = [jobs, jobs[::-1], jobs[10:] + jobs[:10]]
        claims = await asyncio.gather(
            *(
                store.claim(request_of(job, promised=loss != "unknown"))
                for store, order in zip(stores, orders, strict=True)
                for job in order
            )
        )
        counts = {verdict: verdicts(claims).count(verdict) for verdict in set(verdicts(claims))}
        assert counts == {Verdict.GRANT: 20, Verdict.HOLD: 40}


async def test_ten_thousand_cancelled_callers_leave_nothing_behind(db: World) -> None:
    store = await db.worker()
    jobs = await queued(store, 500)
    kept = jobs[:10]
    for round_ in range(20):
        callers: list[asyncio.Future[Any]] = [asyncio.ensure_future(store.claim(request_of(job))) for job in jobs[10:]]
        callers += [asyncio.ensure_future(store.get(job.id)) for job in kept]
        for _ in range(round_ % 7):
            await asyncio.sleep(0.0005)
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
    await eventually(lambda: store.connections_in_use == 0, 30, "all connections to be given back")
    # What was granted to nobody is queued again, uncounted, and can be claimed.

    async def all_claimed() -> bool:
        claims = await asyncio.gather(*(store.claim(request_of(job)) for job in jobs))
        for job, claim in zip(jobs, claims, strict=True):
            if claim.verdict is Verdict.GRANT:
                claimed.add(job.id)
        return len(claimed) == len(jobs)

    claimed = set[str]()
    await eventually(all_claimed, 30, "every job to be claimed")
    assert {state_of(await db.the_row(job.id)) for job in jobs[:20]} == {JobState.RUNNING}
    assert {(await db.the_row(job.id)).attempt for job in jobs[:20]} == {1}


async def test_claim_that_nobody_waits_for_is_interrupted(db: World) -> None:
    store = await db.worker()
    [job] = await queued(store)
    caller = asyncio.ensure_future(store.claim(request_of(job)))
    await asyncio.sleep(0)
    caller.cancel()

    async def given_back() -> bool:
        return [run.outcome for run in (await got(store, job)).attempts] == [Interrupted.__name__.lower()]

    await eventually(given_back, 10, "the claim to be given back")
    found = await got(store, job)
    assert (found.state, found.attempt, found.dispatch) == (JobState.QUEUED, 0, 1)
