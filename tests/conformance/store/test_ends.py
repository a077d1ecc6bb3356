"""What has become of a job, as one narrow read: the same as `get` says, without what makes that expensive."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from jq_actors.model.job import JobId
from jq_actors.model.outcome import Cancelled, Failed, Failure, Outcome, Retrying, Snoozed, Succeeded, Unhandled
from jq_actors.store.records import JobEnd

from .stores import World, got, granted, job_ids, queued, settled

FAILURE = Failure(None, "ValueError: no", "a traceback")
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    "outcome",
    [
        None,
        Succeeded([1, {"a": "b"}]),
        Succeeded(None),
        Failed(FAILURE),
        Cancelled("by somebody"),
        Unhandled("no actor"),
        Retrying(FAILURE, SECOND),
        Snoozed(SECOND),
    ],
    ids=repr,
)
async def test_it_says_what_get_says(db: World, outcome: Outcome | None) -> None:
    store = await db.worker()
    [job] = await queued(store, group="g")
    token = await granted(store, job)
    if outcome is not None:
        assert await settled(store, job, token, outcome)
    found, end = await got(store, job), await store.end_of(job.id)
    assert end is not None
    assert (end.state, end.reason) == (found.state, found.reason)
    has_ended = found.state.is_final
    assert (end.result, end.error, end.traceback) == (
        (found.result, found.error, found.traceback) if has_ended else (None, None, None)
    )


async def test_an_earlier_failure_is_not_the_end(db: World) -> None:
    store = await db.worker()
    [job] = await queued(store)
    assert await settled(store, job, await granted(store, job), Retrying(FAILURE, timedelta()))
    await store.take_due(10, SECOND)
    assert await settled(store, job, await granted(store, job, dispatch=2), Succeeded(5))
    assert await store.end_of(job.id) == JobEnd((await got(store, job)).state, result=5)


async def test_unknown_and_impossible_ids_are_nothing(db: World) -> None:
    store = await db.worker()
    assert await store.end_of(job_ids(1)[0]) is None
    assert await store.end_of(JobId("no uuid")) is None


async def test_a_result_that_cannot_be_read_is_told(db: World) -> None:
    store = await db.worker()
    [job] = await queued(store)
    assert await settled(store, job, await granted(store, job), Succeeded(5))
    payloads = db.tables.payloads
    await db.execute(sa.update(payloads).where(payloads.c.job_id == job.id).values(result="{"))
    end = await store.end_of(job.id)
    assert end is not None
    assert end.result is None
    assert end.reason is not None
    assert "its result cannot be read" in end.reason


async def test_it_is_one_statement_that_reads_no_arguments(db: World) -> None:
    store = await db.worker()
    jobs = await queued(store, 2, group="g")
    assert store._db._engines is not None
    statements: list[str] = []

    @sa.event.listens_for(store._db._engines.reader.sync_engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    await store.end_of(jobs[1].id)
    [statement] = [text for text in statements if not text.startswith("BEGIN")]
    assert "body" not in statement
