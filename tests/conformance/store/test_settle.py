"""Settling, on every database: outcomes go where `protocol` says, and only under their fence."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from jq_actors.errors import StoreError
from jq_actors.events import StoreRefused
from jq_actors.model.claim_rules import attempt_counts, may_settle, state_after
from jq_actors.model.job import TRANSITIONS, Attempt, JobState
from jq_actors.model.outcome import (
    Cancelled,
    Failed,
    Failure,
    Interrupted,
    Outcome,
    Retrying,
    Snoozed,
    Succeeded,
    Unhandled,
)
from jq_actors.store.records import Settlement

from .stores import World, clock, got, granted, new_job, queued, refusals, settled

FAILURE = Failure(None, "ValueError: no", "Traceback …\nValueError: no")
MINUTE = timedelta(minutes=1)
OUTCOMES: list[Outcome] = [
    Succeeded({"a": [1, None]}),
    Failed(FAILURE),
    Retrying(FAILURE, MINUTE),
    Snoozed(MINUTE),
    Cancelled("asked to"),
    Interrupted(),
    Unhandled("no actor 'x'"),
]


@pytest.mark.parametrize("state", JobState)
async def test_only_the_run_that_holds_the_claim_settles(db: World, state: JobState) -> None:
    store = await db.worker()
    for outcome in OUTCOMES:
        for token in (7, 8):
            [job] = await queued(store)
            final = state.value if state.is_final else None
            await db.change(job.id, state=state.value, final_state=final, run_token=7, worker_id="w", attempt=1)
            before = await db.the_row(job.id)

            written = await settled(store, job, token, outcome)

            after = await db.the_row(job.id)
            assert written is may_settle(state, 7, token), (outcome, token)
            if written:
                assert after.state == state_after(outcome)
                assert (state, JobState(after.state)) in TRANSITIONS
                assert after.final_state == (after.state if JobState(after.state).is_final else None)
                assert after.attempt == (1 if attempt_counts(outcome) else 0)
            else:
                assert after == before


async def test_each_outcome_leaves_its_marks(db: World) -> None:
    store = await db.worker()
    jobs = await queued(store, len(OUTCOMES))
    for job, outcome in zip(jobs, OUTCOMES, strict=True):
        assert await settled(store, job, await granted(store, job), outcome)
    found = dict(zip((type(outcome) for outcome in OUTCOMES), [await got(store, job) for job in jobs], strict=True))

    assert {kind: (job.reason, job.error, job.traceback, job.result) for kind, job in found.items()} == {
        Succeeded: (None, None, None, {"a": [1, None]}),
        Failed: (FAILURE.error, FAILURE.error, FAILURE.traceback, None),
        Retrying: (FAILURE.error, FAILURE.error, FAILURE.traceback, None),
        Snoozed: (None, None, None, None),
        Cancelled: ("asked to", None, None, None),
        Interrupted: (None, None, None, None),
        Unhandled: ("no actor 'x'", None, None, None),
    }
    for kind, ended in found.items():
        [run] = ended.attempts
        assert (run.number, run.outcome) == (1, kind.__name__.lower())
        assert run.error == (FAILURE.error if kind in (Failed, Retrying) else None)
        assert (ended.finished_at is not None) is ended.state.is_final
        later = ended.due_at - run.finished_at
        assert later == MINUTE if kind in (Retrying, Snoozed) else later <= timedelta()


async def test_attempt_carries_the_times_of_its_settlement(db: World) -> None:
    store = await db.worker()
    [job] = await queued(store)
    token = await granted(store, job)
    started, ended = clock.wall() - timedelta(hours=2), clock.wall() - timedelta(hours=1)
    assert (await store.settle(Settlement(job.id, token, Succeeded(), started, ended))).written
    found = await got(store, job)
    worker_id = (await db.the_row(job.id)).worker_id
    assert found.attempts == (Attempt(1, worker_id, started, ended, "succeeded", None),)
    assert found.finished_at == ended


async def test_attempts_are_numbered_by_those_that_count(db: World) -> None:
    store = await db.worker()
    [job] = await queued(store)
    outcomes: list[Outcome] = [Snoozed(timedelta()), Retrying(FAILURE, timedelta()), Interrupted(), Failed(FAILURE)]
    for outcome in outcomes:
        await store.take_due(10, MINUTE)
        dispatch = (await db.the_row(job.id)).dispatch
        assert await settled(store, job, await granted(store, job, dispatch=dispatch), outcome)
    found = await got(store, job)
    assert [(run.number, run.outcome) for run in found.attempts] == [
        (1, "snoozed"),
        (1, "retrying"),
        (2, "interrupted"),
        (2, "failed"),
    ]
    assert (found.attempt, found.dispatch) == (2, 3)


async def test_interrupted_is_queued_in_place_and_published_again_only_when_asked(db: World) -> None:
    store = await db.worker()
    [kept, acked] = await queued(store, 2)
    for job, republish in ((kept, False), (acked, True)):
        token = await granted(store, job)
        assert await settled(store, job, token, Interrupted(), republish=republish)
        row = await db.the_row(job.id)
        assert (row.state, row.dispatch, row.attempt) == ("queued", 1, 0)
    dispatches = await store.take_unpublished(None, 10, MINUTE)
    assert [(dispatch.job_id, dispatch.dispatch) for dispatch in dispatches] == [(acked.id, 1)]


async def test_success_after_a_failure_shows_no_error(db: World) -> None:
    store = await db.worker()
    [job] = await queued(store)
    assert await settled(store, job, await granted(store, job), Retrying(FAILURE, timedelta()))
    await store.take_due(10, MINUTE)
    assert await settled(store, job, await granted(store, job, dispatch=2), Succeeded(5))
    found = await got(store, job)
    assert (found.result, found.error, found.traceback, found.reason) == (5, None, None, None)
    assert [run.error for run in found.attempts] == [FAILURE.error, None]


async def test_second_settlement_of_a_run_is_refused(db: World) -> None:
    store = await db.worker()
    [job] = await queued(store)
    token = await granted(store, job)
    answers = await asyncio.gather(*(settled(store, job, token, Succeeded(n)) for n in range(3)))
    assert sorted(answers) == [False, False, True]
    assert not await settled(store, job, token, Failed(FAILURE))
    assert len((await got(store, job)).attempts) == 1


@pytest.mark.parametrize("text", ["nul \0 in it", "half a pair \ud800", "ünïcödé \U0001f600", "x" * 100_000])
async def test_any_text_of_an_error_is_stored(db: World, text: str) -> None:
    store = await db.worker()
    [job] = await queued(store)
    assert await settled(store, job, await granted(store, job), Failed(Failure(None, text, text)))
    found = await got(store, job)
    assert found.error is not None
    assert found.error[:4] == text[:4]
    assert len((await db.the_row(job.id)).reason) <= 600


@pytest.mark.parametrize("value", [0, "", False, [], {"nul": "\0", "half": "\ud800", "big": 2**70}, 1.5, "x" * 100_000])
async def test_any_json_result_comes_back(db: World, value: Any) -> None:
    store = await db.worker()
    [job] = await queued(store)
    assert await settled(store, job, await granted(store, job), Succeeded(value))
    assert (await got(store, job)).result == value


async def test_one_bad_outcome_fails_alone(db: World) -> None:
    store = await db.worker()
    refused = db.record(StoreRefused)
    jobs = await queued(store, 20)
    tokens = [await granted(store, job) for job in jobs]
    bad: dict[int, Outcome] = {3: Succeeded(object()), 11: Snoozed(timedelta.max)}
    outcomes: list[Outcome] = [bad.get(number, Succeeded(number)) for number in range(20)]
    answers = await asyncio.gather(
        *(settled(store, *rest) for rest in zip(jobs, tokens, outcomes, strict=True)), return_exceptions=True
    )
    assert len(refusals(answers)) == 2
    assert [number for number, answer in enumerate(answers) if answer is not True] == [3, 11]
    assert jobs[3].id in str(answers[3])
    assert len(refused.of(StoreRefused)) == 2
    # What is refused is not over: it can still be settled otherwise.
    assert await settled(store, jobs[3], tokens[3], Failed(FAILURE))


async def test_value_that_only_the_database_refuses_fails_alone(db: World) -> None:
    store = await db.worker()
    good, bad = new_job(), new_job(priority=1 << 40)
    answers = await asyncio.gather(
        *(store.insert([job], publish_lease=None) for job in (good, bad)), return_exceptions=True
    )
    assert await store.get(good.id) is not None
    if db.url.startswith("postgresql"):  # SQLite stores any integer in a SMALLINT
        assert isinstance(answers[1], StoreError)
        assert await store.get(bad.id) is None


async def test_settlement_of_a_cancelled_caller_is_written(db: World) -> None:
    store = await db.worker()
    [job] = await queued(store)
    caller = asyncio.ensure_future(settled(store, job, await granted(store, job), Succeeded()))
    await asyncio.sleep(0)
    caller.cancel()
    await store.close()
    rows = await db.execute(sa.select(db.tables.jobs.c.state))
    assert [row.state for row in rows] == ["succeeded"]


async def test_ten_thousand_instant_jobs_end_where_they_should(db: World) -> None:
    store = await db.worker()

    async def live(jobs: list[Any]) -> None:
        for job in jobs:
            assert await settled(store, job, await granted(store, job), Succeeded())

    jobs = await queued(store, 10_000)
    await asyncio.gather(
        *(live(jobs[lane::200]) for lane in range(200)),
        *(store.mark_published([(job.id, 1) for job in jobs[start : start + 100]]) for start in range(0, 10_000, 100)),
    )
    assert await store.count_by_state() == {JobState.SUCCEEDED: 10_000}


async def test_outcomes_that_were_written_by_themselves_stand_when_the_rest_is_refused(
    pg: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is plain is committed before the others; that these are refused must not make it look discarded."""
    store = await pg.worker()
    plain, late = await queued(store, 2)
    token = await granted(store, plain)
    write, tries = store._settles.write, list[bool]()

    async def refused_first(*arguments: Any, may_be_committed: bool) -> Any:
        tries.append(may_be_committed)
        if len(tries) == 1:
            raise StoreError("refused")
        return await write(*arguments, may_be_committed=may_be_committed)

    monkeypatch.setattr(store._settles, "write", refused_first)
    ends = (settled(store, plain, token, Succeeded(1)), settled(store, late, 1, Succeeded(2)))
    assert list(await asyncio.gather(*ends)) == [True, False]
    assert tries == [False, True, True]
    assert len((await got(store, plain)).attempts) == 1
