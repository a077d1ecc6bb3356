"""What a job that fails for good does to its group, on every database."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from jq_actors.events import Event, GroupCancelled, GroupPaused
from jq_actors.groups import GroupRule, GroupRules, OnFailure
from jq_actors.job import JobState
from jq_actors.outcome import Failed, Failure
from jq_actors.store.group_failures import FailedJob
from jq_actors.store.records import NewJob
from jq_actors.store.sql import SqlStore

from .grouped import HOUR, ended, running, sent, states, the_group, with_rule
from .stores import LEASES, ME, World, clock, got, granted, settled


async def failed(db: World, store: SqlStore, *jobs: NewJob) -> list[Event]:
    """What the transaction that fails these jobs does to their groups."""
    failures = store._failures
    now = store.now()
    groups = await store._db.write(lambda c: failures.lock(c, [job.id for job in jobs], now))
    await ended(db, *jobs, state="failed")
    jobs_and_errors = [FailedJob(job.id, "ValueError: no\0") for job in jobs]
    return await store._db.write(lambda c: failures.stop(c, groups, jobs_and_errors, now))


async def test_by_default_a_group_goes_on(db: World) -> None:
    store = await db.worker()
    first, second = await sent(store, 2)
    await running(db, first)
    assert await failed(db, store, first) == []
    assert (await the_group(store)).state == "queued"
    assert await states(db, [second]) == ["queued"]


async def test_a_group_may_pause(db: World) -> None:
    store = await db.worker()
    with_rule(store, on_failure=OnFailure.PAUSE)
    first, second = await sent(store, 2)
    await running(db, first)
    events = await failed(db, store, first)
    assert events == [GroupPaused("g", f"job {first.id} failed: ValueError: no\0")]
    group = await the_group(store)
    assert (group.state, group.reason) == ("paused", f"job {first.id} failed: ValueError: no\\x00")
    assert await states(db, [second]) == ["queued"]
    # A group that an operator had paused keeps his reason, and it is not told again.
    assert await failed(db, store, second) == []
    assert (await the_group(store)).reason == group.reason


@pytest.mark.parametrize("how", ["settled", "crashed"])
async def test_a_group_pauses_in_the_transaction_that_fails_its_job(db: World, how: str) -> None:
    store = await db.worker(identity=replace(ME, id="runs"))
    relay = await db.worker(leases=replace(LEASES, max_crashes=1))
    events = db.record(GroupPaused)
    for each in (store, relay):
        with_rule(each, on_failure=OnFailure.PAUSE)
    first, second = await sent(store, 2)
    token = await granted(store, first)
    if how == "settled":
        assert await settled(store, first, token, Failed(Failure(None, "ValueError: no")))
    else:
        workers = db.tables.workers
        lapsed = sa.update(workers).where(workers.c.id == "runs").values(lease_until=clock.wall() - HOUR)
        await db.execute(lapsed)
        assert (await relay.recover(10)).failed == (first.id,)
    [event] = events.of(GroupPaused)
    group = await the_group(store)
    assert (group.state, group.reason, group.head) == ("paused", event.reason, second.id)
    assert event.reason.startswith(f"job {first.id} failed: ")


async def test_the_rest_of_a_group_may_be_cancelled(db: World) -> None:
    store = await db.worker()
    with_rule(store, on_failure=OnFailure.CANCEL_REST, concurrency=2)
    first, runs, *rest = await sent(store, 7)
    [other] = await sent(store, 1, "other")
    [scheduled] = await sent(store, 1, due_in=timedelta(hours=1))
    await running(db, first, runs)
    for job, state in zip(rest, ["queued", "waiting", "retrying", "unhandled", "queued"], strict=True):
        await db.change(job.id, state=state)
    events = await failed(db, store, first)
    reason = f"job {first.id} failed: ValueError: no\0"
    assert events == [GroupCancelled("g", 6, reason)]
    assert await states(db, [*rest, scheduled]) == ["cancelled"] * 6
    assert await states(db, [first, runs, other]) == ["failed", "running", "queued"]
    found = await got(store, scheduled)
    assert (found.state, found.reason) == (JobState.CANCELLED, reason.replace("\0", "\\x00"))
    assert found.finished_at is not None
    row = await db.the_row(scheduled.id)
    assert (row.final_state, row.wake_at, row.publish_at, row.parked_at) == ("cancelled", None, None, None)
    # What is sent later runs: it does not belong to what has failed.
    [later] = await sent(store, 1)
    assert await states(db, [later]) == ["queued"]
    assert await store.take_due(10, timedelta(minutes=1)) == []


async def test_each_group_by_its_own_rule_and_ungrouped_jobs_not_at_all(db: World) -> None:
    store = await db.worker()
    pausing, cancelling = GroupRule("p*", on_failure=OnFailure.PAUSE), GroupRule("c*", on_failure=OnFailure.CANCEL_REST)
    store.rules = GroupRules((pausing, cancelling))
    jobs = {name: (await sent(store, 2, name)) for name in ("pay", "clean", "x", None)}
    await running(db, jobs["pay"][0])
    events = await failed(db, store, *(first for first, _ in jobs.values()))
    assert {type(event) for event in events} == {GroupPaused, GroupCancelled}
    assert await states(db, [second for _, second in jobs.values()]) == ["queued", "cancelled", "queued", "queued"]
    assert (await the_group(store, "pay")).state == "paused"


@pytest.mark.parametrize("on_failure", [OnFailure.PAUSE, OnFailure.CANCEL_REST])
async def test_failures_at_once_in_the_same_groups_do_not_stop_each_other(db: World, on_failure: OnFailure) -> None:
    stores = [await db.worker() for _ in range(2)]
    groups = [f"g{number}" for number in range(5)]
    jobs = [(await sent(stores[0], 3, group)) for group in groups]
    for store in stores:
        with_rule(store, on_failure=on_failure, concurrency=2)
    events = await asyncio.gather(
        failed(db, stores[0], *(of_group[0] for of_group in jobs)),
        failed(db, stores[1], *(of_group[1] for of_group in reversed(jobs))),
    )
    told = sorted(event.group for part in events for event in part if isinstance(event, GroupPaused | GroupCancelled))
    assert set(told) == set(groups)
    if on_failure is OnFailure.PAUSE:
        assert told == groups
