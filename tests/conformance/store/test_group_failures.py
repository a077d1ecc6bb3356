"""What a job that fails for good does to its group, on every database."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from jq_actors.events import GroupCancelled, GroupPaused
from jq_actors.model.group_rules import GroupRule, GroupRules, OnFailure
from jq_actors.model.job import JobState
from jq_actors.model.outcome import Failed, Failure, Outcome, Retrying, Unhandled
from jq_actors.store.records import NewJob, Settled, Settlement
from jq_actors.store.sql import SqlStore

from .grouped import HOUR, sent, states, the_group, with_rule
from .stores import LEASES, ME, World, got
from .turns import FITS, a_chain, asks, ends, runs

FAILED = Failed(Failure(None, "ValueError: no\0"))
FAILURE = Failure(None, "not yet")


async def begun(store: SqlStore, job: NewJob, outcome: Outcome = FAILED) -> Settlement:
    """``job`` runs; what ends it, and wishes to go on."""
    request = asks(job)
    answer = await store.claim(request)
    now = store.now()
    return Settlement(job.id, request.run_token, outcome, now, now, group=answer.group, chain=a_chain())


async def test_by_default_a_group_goes_on(led: World) -> None:
    store = await led.worker()
    first, second = await sent(store, 2)
    await runs(store, first, FAILED)
    assert (await the_group(store)).state == "queued"
    assert await states(led, [first, second]) == ["failed", "queued"]


async def test_a_group_may_pause(led: World) -> None:
    store = await led.worker()
    store.fits = FITS
    with_rule(store, on_failure=OnFailure.PAUSE)
    events = led.record(GroupPaused)
    first, second = await sent(store, 2)
    assert await runs(store, first, FAILED, chain=a_chain()) == Settled(written=True)
    assert events.seen == [GroupPaused("g", f"job {first.id} failed: ValueError: no\0")]
    group = await the_group(store)
    assert (group.state, group.reason) == ("paused", f"job {first.id} failed: ValueError: no\\x00")
    assert await states(led, [second]) == ["waiting"]
    await store.resume_group("g")
    await runs(store, second)


async def test_group_that_was_paused_keeps_its_reason(led: World) -> None:
    store = await led.worker()
    with_rule(store, on_failure=OnFailure.PAUSE, concurrency=2)
    events = led.record(GroupPaused)
    jobs = await sent(store, 3)
    ends_ = [await begun(store, job) for job in jobs[:2]]
    await store.pause_group("g", "by ops")
    for end in ends_:
        assert (await store.settle(end)).written
    assert events.seen == []
    assert (await the_group(store)).reason == "by ops"
    assert await states(led, jobs) == ["failed", "failed", "waiting"]


async def test_a_group_pauses_also_for_what_it_cannot_withdraw(led: World) -> None:
    """Others of it run or wait for their retry: they stay where they are, and nothing starts beside them."""
    store = await led.worker()
    with_rule(store, on_failure=OnFailure.PAUSE, concurrency=4)
    jobs = await sent(store, 5)
    await runs(store, jobs[1], Retrying(FAILURE, HOUR))
    other = asks(jobs[2])
    answer = await store.claim(other)
    await runs(store, jobs[0], FAILED)
    assert await states(led, jobs) == ["failed", "retrying", "running", "waiting", "waiting"]
    await ends(store, other, answer)
    assert await states(led, jobs[3:]) == ["waiting", "waiting"]


async def test_the_rest_of_a_group_may_be_cancelled(led: World) -> None:
    store = await led.worker()
    store.fits = FITS
    with_rule(store, on_failure=OnFailure.CANCEL_REST, concurrency=5)
    events = led.record(GroupCancelled)
    first, runs_, *rest = await sent(store, 7)
    [other] = await sent(store, 1, "other")
    [scheduled] = await sent(store, 1, due_in=HOUR)
    await store.claim(asks(runs_))
    await runs(store, rest[0], Retrying(FAILURE, HOUR))
    await runs(store, rest[1], Unhandled("no actor"))
    assert await states(led, rest) == ["retrying", "unhandled", "queued", "waiting", "waiting"]
    assert (await runs(store, first, FAILED, chain=a_chain())).next is None
    reason = f"job {first.id} failed: ValueError: no\0"
    assert events.seen == [GroupCancelled("g", 6, reason)]
    assert await states(led, [*rest, scheduled]) == ["cancelled"] * 6
    assert await states(led, [first, runs_, other]) == ["failed", "running", "queued"]
    found = await got(store, scheduled)
    assert (found.state, found.reason) == (JobState.CANCELLED, reason.replace("\0", "\\x00"))
    assert found.finished_at is not None
    # What is sent later runs: it does not belong to what has failed.
    [later] = await sent(store, 1)
    assert await states(led, [later]) == ["queued"]
    assert (await store.take_due(10, HOUR)).count == 0


async def test_each_group_by_its_own_rule_and_ungrouped_jobs_not_at_all(led: World) -> None:
    store = await led.worker()
    pausing, cancelling = GroupRule("p*", on_failure=OnFailure.PAUSE), GroupRule("c*", on_failure=OnFailure.CANCEL_REST)
    store.rules = GroupRules((pausing, cancelling))
    events = led.record(GroupPaused, GroupCancelled)
    jobs = {name: (await sent(store, 2, name)) for name in ("pay", "clean", "x", None)}
    settlements = [await begun(store, first) for first, _ in jobs.values()]
    await asyncio.gather(*(store.settle(replace(settlement, chain=None)) for settlement in settlements))
    assert {type(event) for event in events.seen} == {GroupPaused, GroupCancelled}
    assert await states(led, [second for _, second in jobs.values()]) == ["waiting", "cancelled", "queued", "queued"]
    assert (await the_group(store, "pay")).state == "paused"


@pytest.mark.parametrize("on_failure", [OnFailure.PAUSE, OnFailure.CANCEL_REST])
async def test_failures_at_once_in_the_same_groups_do_not_stop_each_other(led: World, on_failure: OnFailure) -> None:
    stores = [await led.worker(identity=replace(ME, id=name), leases=LEASES) for name in ("a", "b")]
    for store in stores:
        with_rule(store, on_failure=on_failure, concurrency=2)
    events = led.record(GroupPaused, GroupCancelled)
    names = [f"g{n}" for n in range(5)]
    jobs = [await sent(stores[0], 3, name) for name in names]
    failures = [[await begun(stores[n], job[n]) for job in jobs] for n in range(2)]
    failures[1].reverse()
    await asyncio.gather(
        *(store.settle(failure) for store, some in zip(stores, failures, strict=True) for failure in some)
    )
    assert sorted(event.group for event in events.seen if isinstance(event, GroupPaused | GroupCancelled)) == names
    expected = "waiting" if on_failure is OnFailure.PAUSE else "cancelled"
    assert await states(led, [third for _, _, third in jobs]) == [expected] * 5
