"""A job that runs again and again, which a snooze does without end: its history stays of a size that can be read."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa

from jq_actors.model.outcome import Failure, Interrupted, Outcome, Retrying, Snoozed, Unhandled
from jq_actors.store.reading.reading import MAX_ATTEMPTS
from jq_actors.store.records import NewJob, Retention, Settled, Settlement
from jq_actors.store.relay.old_runs import KEPT_RUNS, SETTLED_SINCE

from .stores import World, clock, got, granted, queued, settled

SECOND = timedelta(seconds=1)


async def add_runs(db: World, job: NewJob, outcome: str, count: int, last: datetime) -> None:
    """Runs of ``job``, one a second."""
    rows = [
        {
            "job_id": job.id,
            "run_token": clock.random_bits(62),
            "number": 1,
            "worker_id": "w",
            "started_at": last - n * SECOND,
            "finished_at": last - n * SECOND,
            "outcome": outcome,
        }
        for n in range(count)
    ]
    await db.execute(sa.insert(db.tables.attempts).values(rows))


async def runs_of(db: World, job: NewJob) -> Counter[str]:
    attempts = db.tables.attempts.c
    rows = await db.execute(sa.select(attempts.outcome).where(attempts.job_id == job.id))
    return Counter(row.outcome for row in rows)


@pytest.mark.parametrize(
    "outcome", [Snoozed(SECOND), Interrupted(), Unhandled("why"), Retrying(Failure(None, "no"), SECOND)], ids=repr
)
async def test_only_the_newest_runs_of_a_job_are_kept(db: World, outcome: Outcome) -> None:
    store = await db.worker()
    job, other = await queued(store, 2)
    hour_ago = clock.wall() - timedelta(hours=1)
    for each in (job, other):
        await add_runs(db, each, "snoozed", 120, hour_ago)
        await add_runs(db, each, "retrying", 30, hour_ago - timedelta(days=1))
    assert await settled(store, job, await granted(store, job), outcome)
    await store.prune(Retention(), 10)
    name = type(outcome).__name__.lower()
    expected = Counter(snoozed=KEPT_RUNS, retrying=30)
    if name != "retrying":  # it is one of those that do not count
        expected["snoozed"] -= 1
    expected[name] += 1
    assert await runs_of(db, job) == expected
    # Of a job that did not run again nothing can have grown.
    assert await runs_of(db, other) == Counter(snoozed=120, retrying=30)
    newest = (await got(store, job)).attempts[-2]
    assert newest.finished_at == hour_ago


async def test_a_run_that_was_settled_just_now_is_found_again(db: World) -> None:
    """Its answer may be lost, and then it is settled once more."""
    store = await db.worker()
    [job] = await queued(store)
    token = await granted(store, job)
    now = store.now()
    snoozed = Settlement(job.id, token, Snoozed(SECOND), now, now)
    assert (await store.settle(snoozed)).written
    await add_runs(db, job, "snoozed", 200, now + 300 * SECOND)
    await store.prune(Retention(), 10)
    assert (await runs_of(db, job))["snoozed"] == 201
    assert await store._write_settlements([snoozed], may_be_committed=True) == [Settled(written=True)]


async def test_runs_are_pruned_once_they_are_old_enough(db: World) -> None:
    store = await db.worker()
    [job] = await queued(store)
    await add_runs(db, job, "snoozed", 200, clock.wall() - SETTLED_SINCE - SECOND)
    assert await settled(store, job, await granted(store, job), Snoozed(SECOND))
    await store.prune(Retention(), 10)
    assert (await runs_of(db, job))["snoozed"] == KEPT_RUNS


async def test_a_bounded_number_of_runs_is_read(db: World) -> None:
    store = await db.worker()
    [job] = await queued(store)
    last = clock.wall().replace(microsecond=0)
    await add_runs(db, job, "snoozed", 500, last)
    attempts = (await got(store, job)).attempts
    assert [run.started_at for run in attempts] == [last - n * SECOND for n in reversed(range(MAX_ATTEMPTS))]
