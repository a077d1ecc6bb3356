"""Inserting jobs without groups: nothing is asked before, and where it can be, one statement is all there is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from jq_actors.errors import StoreError, StoreUnavailableError
from jq_actors.model.job import JobState
from jq_actors.store.inserts import ungrouped_inserts
from tests.support.proxy import TcpProxy

from .stores import World, got, job_ids, new_job, unpublished, world_on

MINUTE = timedelta(minutes=1)


async def test_a_row_has_what_was_sent(db: World) -> None:
    store = await db.worker()
    job = new_job(priority=9, tags=("a", "b"), body='{"args":[],"kwargs":{"k":["ä\\u0000\\"{}"]}}'.encode())
    await store.insert([job], publish_lease=None)
    found = await got(store, job)
    assert (found.actor, found.queue, found.group, found.position) == ("send_mail", "mail", None, None)
    assert (found.priority, found.tags, found.args) == (9, ("a", "b"), ())
    assert found.kwargs == {"k": ['ä\x00"{}']}
    assert (found.state, found.dispatch, found.attempt, found.crashes) == (JobState.QUEUED, 1, 0, 0)
    assert (found.due_at, found.enqueued_at) == (job.due_at, job.enqueued_at)
    row = await db.the_row(job.id)
    assert (row.publish_at, row.wake_at, row.published_at) == (job.due_at, None, None)
    assert (row.redispatches, row.order_key, row.final_state, row.has_place) == (0, None, None, False)


async def test_a_delayed_one_waits_for_its_time(db: World) -> None:
    store = await db.worker()
    job = new_job(due_in=timedelta(days=365 * 200, microseconds=1))
    assert await store.insert([job], publish_lease=MINUTE) == []
    row = await db.the_row(job.id)
    assert (row.state, row.publish_at, row.due_at, row.wake_at) == ("scheduled", None, job.due_at, job.due_at)


async def test_each_insertion_has_the_lease_of_its_own_producer(db: World) -> None:
    store = await db.worker()
    leased, free = new_job(), new_job()
    before = store.now()
    await asyncio.gather(store.insert([leased], publish_lease=MINUTE), store.insert([free], publish_lease=None))
    until = (await db.the_row(leased.id)).publish_at
    assert before + MINUTE <= until <= store.now() + MINUTE
    assert (await db.the_row(free.id)).publish_at == free.due_at
    await store.mark_published([(leased.id, 1)])
    assert (await db.the_row(leased.id)).publish_at is None


async def test_they_are_stored_in_the_order_in_which_they_were_sent(db: World) -> None:
    store = await db.worker()
    sendings = [[new_job(job_id) for job_id in job_ids(count)] for count in (1, 1, 1300, 2, 700, 1)]
    await asyncio.gather(*(store.insert(jobs, publish_lease=MINUTE) for jobs in sendings))
    c = db.tables.jobs.c
    stored = [row.id for row in await db.execute(sa.select(c.id).order_by(c.seq))]
    assert stored == [job.id for jobs in sendings for job in jobs]
    bodies = await db.execute(sa.select(sa.func.count()).select_from(db.tables.payloads))
    assert bodies[0][0] == len(stored)


async def test_large_ones_go_in_parts_and_stay_all_or_none(db: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ungrouped_inserts, "MOST_BYTES", 2000)
    store = await db.worker()
    [known] = await unpublished(store)
    jobs = [new_job(body=b'{"args":["' + b"x" * 500 + b'"],"kwargs":{}}') for _ in range(20)]
    with pytest.raises(StoreError, match=known.id):
        await store.insert([*jobs, known], publish_lease=None)
    assert await store.count_by_state() == {JobState.QUEUED: 1}
    await store.insert([*jobs, new_job(body=b'{"args":["' + b"x" * 5000 + b'"],"kwargs":{}}')], publish_lease=None)
    assert await store.count_by_state() == {JobState.QUEUED: 22}


async def test_one_that_exists_is_named_and_harms_no_other(db: World) -> None:
    store = await db.worker()
    [known] = await unpublished(store)
    others = [new_job(job_id) for job_id in job_ids(30)]
    sendings = [[job] for job in (*others[:17], known, *others[17:])]
    answers = await asyncio.gather(*(store.insert(s, publish_lease=None) for s in sendings), return_exceptions=True)
    errors = [answer for answer in answers if isinstance(answer, BaseException)]
    assert [str(error) for error in errors] == [f"A job {known.id} exists already."]
    assert await store.count_by_state() == {JobState.QUEUED: 31}


@pytest.mark.parametrize("is_committed", [True, False])
async def test_when_the_answer_is_lost_they_are_stored_once(
    pg: World, monkeypatch: pytest.MonkeyPatch, is_committed: bool
) -> None:
    store = await pg.worker()
    autocommit = store._db.autocommit
    lost: list[None] = []

    async def lose_the_answer(*arguments: Any) -> None:
        lost.append(None)
        if is_committed:
            assert await autocommit(*arguments) is not None

    monkeypatch.setattr(store._db, "autocommit", lose_the_answer)
    sendings = [[new_job() for _ in range(3)] for _ in range(4)]
    answers = await asyncio.gather(*(store.insert(jobs, publish_lease=MINUTE) for jobs in sendings))
    assert [[d.job_id for d in dispatches] for dispatches in answers] == [[j.id for j in jobs] for jobs in sendings]
    assert lost
    assert await store.count_by_state() == {JobState.QUEUED: 12}
    await store.mark_published([(dispatch.job_id, 1) for dispatches in answers for dispatch in dispatches])
    unmarked = sa.select(sa.func.count()).where(pg.tables.jobs.c.published_at.is_(None))
    assert (await pg.execute(unmarked))[0][0] == 0, "they are leased as was said"


async def test_connections_that_have_died_meanwhile_are_no_harm(
    pg: World, tcp_proxy: Callable[[str], TcpProxy]
) -> None:
    proxy = tcp_proxy(pg.url)
    async with world_on(proxy.url(pg.url)) as world:
        store = await world.worker()
        for count in range(1, 4):
            await store.insert([new_job()], publish_lease=None)
            assert await store.count_by_state() == {JobState.QUEUED: count}
            await asyncio.to_thread(proxy.cut)


async def test_with_the_database_away_nothing_is_stored(pg: World, tcp_proxy: Callable[[str], TcpProxy]) -> None:
    proxy = tcp_proxy(pg.url)
    async with world_on(proxy.url(pg.url)) as world:
        store = await world.worker()
        await asyncio.to_thread(proxy.refuse)
        await asyncio.to_thread(proxy.cut)
        with pytest.raises(StoreUnavailableError):
            await store.insert([new_job()], publish_lease=None)
        await asyncio.to_thread(proxy.accept)
        await store.insert([new_job()], publish_lease=None)
        assert await store.count_by_state() == {JobState.QUEUED: 1}
