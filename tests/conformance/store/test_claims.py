"""Claims, on every database: the SQL decides as `protocol.judge` does, and nobody is granted twice."""

from __future__ import annotations

import asyncio
import itertools
import os
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import assert_never

import pytest
import sqlalchemy as sa

from jq_actors.errors import RuntimeStateError
from jq_actors.events import JobFailed, JobTakenOver
from jq_actors.model.claim_rules import Owner, RowView, Verdict, judge
from jq_actors.model.job import JobState
from jq_actors.model.outcome import Succeeded
from jq_actors.store.records import Claim, NewJob
from jq_actors.store.sql import SqlStore

from .stores import (
    LEASE,
    LEASES,
    ME,
    World,
    clock,
    ended_pid,
    got,
    granted,
    new_job,
    queued,
    request_of,
    settled,
    verdicts,
    worker_in_another_process,
)

HOUR = timedelta(hours=1)
OWNERS = ["live", "lapsed", "dead", "gone"]


@dataclass(frozen=True)
class Case:
    """What a claim can meet. The row's dispatch is 2."""

    state: JobState | None
    dispatch: int
    promised: bool
    owner: str | None


def _cases(state: JobState | None) -> list[Case]:
    owners = OWNERS if state is JobState.RUNNING else [None]
    return [Case(state, *rest) for rest in itertools.product([1, 2, 3], [True, False], owners)]


@pytest.mark.parametrize("state", [None, *JobState])
async def test_store_decides_as_judge_does(db: World, state: JobState | None) -> None:
    store = await db.worker()
    await _add_owners(db)
    for case in _cases(state):
        job = new_job()
        view = await _arrange(db, store, case, job)
        expected = judge(view, case.dispatch, store.now(), promised=case.promised)
        before = await db.row(job.id)
        request = request_of(job, dispatch=case.dispatch, promised=case.promised)

        claim = await store.claim(request)

        after = await db.row(job.id)
        assert claim == _answer(expected, claim), case
        if claim.verdict is Verdict.GRANT:
            assert after is not None
            seen = (after.state, after.run_token, after.dispatch, after.publish_at)
            assert seen == ("running", request.run_token, case.dispatch, None), case
            assert after.published_at is not None
        else:
            assert after == before, case


def _answer(expected: Verdict, claim: Claim) -> Claim:
    match expected:
        case Verdict.GRANT | Verdict.ADOPT:
            return Claim(Verdict.GRANT, attempt=1)
        case Verdict.TAKE_OVER:
            return Claim(Verdict.GRANT, attempt=2, crashes=1)
        case Verdict.HOLD:
            assert timedelta() < claim.look_again <= HOUR
            return Claim(Verdict.HOLD, look_again=claim.look_again)
        case Verdict.DROP_FINAL | Verdict.DROP_STALE:
            return Claim(expected)
        case Verdict.PARK:
            raise AssertionError("none of these jobs has a group")
        case _:
            assert_never(expected)


async def _arrange(db: World, store: SqlStore, case: Case, job: NewJob) -> RowView | None:
    if case.state is None:
        return None
    await store.insert([job], publish_lease=None)
    values: dict[str, object] = {"state": case.state.value, "dispatch": 2}
    if case.state.is_final:
        values["final_state"] = case.state.value
    if case.state is not JobState.RUNNING:
        await db.change(job.id, **values)
        return RowView(case.state, 2)
    run = {"run_token": 1, "worker_id": case.owner, "attempt": 1, "started_at": clock.wall()}
    await db.change(job.id, **values, **run)
    lease_until = clock.wall() + (-HOUR if case.owner == "lapsed" else HOUR)
    owner = Owner(case.owner or "", lease_until, known_dead=case.owner == "dead")
    return RowView(case.state, 2, None if case.owner == "gone" else owner)


async def _add_owners(db: World) -> None:
    now = clock.wall()
    await db.add_worker("live", now + HOUR)
    await db.add_worker("lapsed", now - HOUR)
    await db.add_worker("dead", now + HOUR, host=ME.host, pid=ended_pid())


async def test_claims_of_one_job_in_one_batch_are_granted_once(db: World) -> None:
    store = await db.worker()
    [known], unknown = await queued(store), new_job()
    lost = (await queued(store))[0]
    await db.change(lost.id, state="running", run_token=1, worker_id="gone", attempt=1, started_at=clock.wall())

    for job, promised in ((known, True), (unknown, False), (lost, True)):
        claims = await asyncio.gather(*(store.claim(request_of(job, promised=promised)) for _ in range(5)))
        assert sorted(verdicts(claims)) == [Verdict.GRANT, *[Verdict.HOLD] * 4]


async def test_batch_answers_each_request_with_its_own_verdict(db: World) -> None:
    store = await db.worker()
    fresh, done, other = await queued(store, 3)
    token = await granted(store, done)
    assert await settled(store, done, token, Succeeded())
    claims = await asyncio.gather(
        store.claim(request_of(fresh)),
        store.claim(request_of(done)),
        store.claim(request_of(other, dispatch=7)),
        store.claim(request_of(new_job())),
        store.claim(request_of(new_job(), promised=False)),
    )
    assert verdicts(claims) == [
        Verdict.GRANT,
        Verdict.DROP_FINAL,
        Verdict.DROP_STALE,
        Verdict.DROP_FINAL,
        Verdict.GRANT,
    ]


async def test_running_in_this_process_is_held_even_when_the_lease_is_over(db: World) -> None:
    store = await db.worker()
    [job] = await queued(store)
    await granted(store, job)
    await db.execute(sa.update(db.tables.workers).values(lease_until=clock.wall() - HOUR))
    assert (await store.claim(request_of(job))).verdict is Verdict.HOLD


async def test_held_until_the_owners_lease_can_be_over(db: World) -> None:
    owner, other = await db.worker(), await db.worker()
    [job] = await queued(owner)
    await granted(owner, job)
    claim = await other.claim(request_of(job))
    assert claim.verdict is Verdict.HOLD
    assert LEASE - timedelta(seconds=10) < claim.look_again <= LEASE


async def test_adopted_job_has_row_payload_and_worker(db: World) -> None:
    store = await db.worker()
    job = new_job(tags=("a", "b"), priority=4, body='{"args":["ü"],"kwargs":{}}'.encode())
    claim = await store.claim(request_of(job, dispatch=3, promised=False))
    assert claim.verdict is Verdict.GRANT
    found = await got(store, job)
    assert (found.state, found.dispatch, found.attempt) == (JobState.RUNNING, 3, 1)
    assert (found.args, found.tags, found.priority) == (("ü",), ("a", "b"), 4)


async def test_adopted_command_in_another_encoding_of_json_is_kept(db: World) -> None:
    store = await db.worker()
    job = new_job(body='{"args":["ü"],"kwargs":{}}'.encode("utf-16"))
    await store.claim(request_of(job, promised=False))
    assert (await got(store, job)).args == ("ü",)


async def test_taken_over_run_is_an_attempt_that_was_lost(db: World) -> None:
    owner, other = await db.worker(), await db.worker()
    taken = db.record(JobTakenOver)
    [job] = await queued(owner)
    old = await granted(owner, job)
    await _lose(db, owner, job.id)

    new = request_of(job)
    assert await other.claim(new) == Claim(Verdict.GRANT, attempt=2, crashes=1)

    found = await got(other, job)
    assert (found.crashes, found.worker_id) == (1, (await db.the_row(job.id)).worker_id)
    assert [(run.number, run.outcome) for run in found.attempts] == [(1, "lost")]
    assert "worker lost" in (found.attempts[0].error or "")
    assert taken.of(JobTakenOver) == [JobTakenOver(job.id, 1)]
    # The fence: the run that was lost writes nothing, the new one does.
    assert not await settled(owner, job, old, Succeeded("old"))
    assert await settled(other, job, new.run_token, Succeeded("new"))
    assert (await got(other, job)).result == "new"


async def test_job_that_loses_too_many_workers_fails(db: World) -> None:
    store = await db.worker(leases=replace(LEASES, max_crashes=3))
    failed = db.record(JobFailed)
    [job] = await queued(store)
    for crash in range(1, 4):
        await db.change(
            job.id,
            state="running",
            run_token=crash,
            worker_id="gone",
            attempt=crash,
            crashes=crash - 1,
            started_at=clock.wall(),
        )
        claim = await store.claim(request_of(job))
        assert claim.verdict is (Verdict.GRANT if crash < 3 else Verdict.DROP_FINAL)
    found = await got(store, job)
    assert (found.state, found.crashes, found.reason) == (JobState.FAILED, 3, "worker lost (gone) 3 times")
    assert found.error == found.reason
    assert [run.outcome for run in found.attempts] == ["lost"] * 3
    assert [event.error for event in failed.of(JobFailed)] == [found.reason]


async def test_process_that_is_killed_is_taken_over_at_once(db: World) -> None:
    async with worker_in_another_process("victim") as identity:
        owner, other = await db.worker(identity=identity), await db.worker()
        [job] = await queued(owner)
        await granted(owner, job)
        assert (await other.claim(request_of(job))).verdict is Verdict.HOLD
    assert (await other.claim(request_of(job))).verdict is Verdict.GRANT


async def test_reused_pid_is_not_the_worker(db: World) -> None:
    owner = await db.worker(identity=replace(ME, id="before", pid=os.getpid(), process_started=1.0))
    other = await db.worker()
    [job] = await queued(owner)
    await granted(owner, job)
    assert (await other.claim(request_of(job))).verdict is Verdict.GRANT


async def test_worker_whose_row_was_removed_makes_it_again_to_claim(db: World) -> None:
    store = await db.worker()
    known, unknown = (await queued(store))[0], new_job()
    await db.execute(sa.delete(db.tables.workers))
    assert (await store.claim(request_of(known))).verdict is Verdict.GRANT
    await db.execute(sa.delete(db.tables.workers))
    assert (await store.claim(request_of(unknown, promised=False))).verdict is Verdict.GRANT
    assert len(await db.execute(sa.select(db.tables.workers.c.id))) == 1


async def test_claim_before_register_is_refused(db: World) -> None:
    store = db.store()
    await store.open()
    with pytest.raises(RuntimeStateError, match="registered"):
        await store.claim(request_of(new_job()))


async def _lose(db: World, owner: object, job_id: str) -> None:
    row = await db.the_row(job_id)  # type: ignore[arg-type]  # a JobId is text
    workers = db.tables.workers
    past = clock.wall() - HOUR
    await db.execute(sa.update(workers).where(workers.c.id == row.worker_id).values(lease_until=past))
