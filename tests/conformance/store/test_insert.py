"""Inserting, on every database: what was sent is stored, all or none, in the order of sending."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from jq_actors.errors import StoreError
from jq_actors.model.job import JobState
from jq_actors.store.records import Dispatch

from .stores import World, got, job_ids, new_job, unpublished


async def test_inserted_row_has_what_was_sent(db: World) -> None:
    store = await db.worker()
    job = new_job(
        group="account-7",
        priority=9,
        tags=("a", "b"),
        due_in=timedelta(hours=1),
        body=b'{"args":[],"kwargs":{"k":[1]}}',
    )
    await store.insert([job], publish_lease=None)
    found = await got(store, job)
    assert (found.actor, found.queue, found.group) == ("send_mail", "mail", "account-7")
    assert (found.priority, found.tags, found.args, found.kwargs) == (9, ("a", "b"), (), {"k": [1]})
    assert (found.state, found.dispatch, found.attempt, found.crashes) == (JobState.SCHEDULED, 1, 0, 0)
    assert (found.due_at, found.enqueued_at) == (job.due_at, job.enqueued_at)
    assert (found.started_at, found.finished_at, found.result, found.reason) == (None, None, None, None)


async def test_insert_is_all_or_none(db: World) -> None:
    store = await db.worker()
    [known] = await unpublished(store)
    new = [new_job(job_id) for job_id in job_ids(1200)]
    with pytest.raises(StoreError, match=known.id):
        await store.insert([*new, known], publish_lease=None)
    assert await store.count_by_state() == {JobState.QUEUED: 1}
    with pytest.raises(StoreError, match="exists already"):
        await store.insert([new[0], new[0]], publish_lease=None)
    await store.insert(new, publish_lease=None)
    assert await store.count_by_state() == {JobState.QUEUED: 1201}


async def test_insertion_that_is_refused_harms_no_other(db: World) -> None:
    store = await db.worker()
    [known] = await unpublished(store)
    batches = [[new_job(job_id) for job_id in job_ids(3)] for _ in range(10)]
    batches[4].append(known)
    answers = await asyncio.gather(
        *(store.insert(batch, publish_lease=None) for batch in batches), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [list] * 4 + [StoreError] + [list] * 5
    assert await store.count_by_state() == {JobState.QUEUED: 28}


async def test_insert_answers_what_its_caller_has_to_publish(db: World) -> None:
    store = await db.worker()
    plain = new_job(priority=3)
    later, first, behind = new_job(due_in=timedelta(hours=1)), new_job(group="g"), new_job(group="g")
    assert await store.insert([plain, later, first, behind], publish_lease=timedelta(minutes=1)) == [
        Dispatch(plain.id, 1, "mail", plain.body, 3, None),
        Dispatch(first.id, 1, "mail", first.body, 0, "g"),
    ]
    assert await store.insert([new_job()], publish_lease=None) == [], "a relay publishes it"


async def test_who_publishes_marks_what_was_answered(db: World) -> None:
    store = await db.worker()
    [dispatch] = await store.insert([new_job()], publish_lease=timedelta(minutes=1))
    await store.mark_published([(dispatch.job_id, dispatch.dispatch)])
    row = await db.the_row(dispatch.job_id)
    assert (row.published_at is not None, row.publish_at) == (True, None)
