"""Inserting jobs of groups: admitted as their turns are, by one statement where that can be, or by several."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa

from jq_actors.errors import StoreError, StoreUnknownError
from jq_actors.store.sql import SqlStore

from .grouped import HOUR, MINUTE, ids_of, is_counted, numbered, order_of, sent, states, with_rule
from .places import wrong_in
from .stores import World, job_ids, new_job


@pytest.fixture
async def each(each_way: World) -> World:
    return each_way


async def test_first_ones_get_the_places_and_the_rest_waits(each: World) -> None:
    store = await each.worker()
    with_rule(store, concurrency=3)
    jobs = [new_job(job_id, group="g") for job_id in job_ids(5)]
    assert ids_of(await store.insert(jobs, publish_lease=HOUR)) == ids_of(jobs[:3])
    assert await states(each, jobs) == ["queued"] * 3 + ["waiting"] * 2
    assert await store.insert([late := new_job(group="g")], publish_lease=HOUR) == []
    assert await order_of(store) == ids_of([*jobs, late])
    assert (await each.the_row(late.id)).reason == "behind other jobs of its group"


async def test_sendings_of_one_batch_share_the_places_in_their_order(each: World) -> None:
    store = await each.worker()
    with_rule(store, concurrency=2)
    groups = [["a"], ["a", "b"], ["b", "a", "b"], ["c"]]
    sendings = [[new_job(job_id, group=g) for g, job_id in zip(of, job_ids(len(of)), strict=True)] for of in groups]
    answers = await asyncio.gather(*(store.insert(jobs, publish_lease=HOUR) for jobs in sendings))
    assert [ids_of(dispatches) for dispatches in answers] == [
        ids_of(sendings[0]),
        ids_of(sendings[1]),
        ids_of(sendings[2][:1]),
        ids_of(sendings[3]),
    ]
    assert await order_of(store, "a") == ids_of([sendings[0][0], sendings[1][0], sendings[2][1]])


async def test_in_a_paused_group_all_wait(each: World) -> None:
    store = await each.worker()
    await store.pause_group("g", "by ops")
    jobs = await sent(store, 2)
    assert await states(each, jobs) == ["waiting"] * 2
    await store.resume_group("g")
    assert await states(each, jobs) == ["queued", "waiting"]


async def test_what_a_numbered_group_refuses_does_not_hold_up_its_batch(each: World) -> None:
    store = await each.worker()
    await numbered(store, 1)
    plain, other = new_job(group="g"), new_job(group="h")
    refused, stored = await asyncio.gather(
        store.insert([plain], publish_lease=HOUR), store.insert([other], publish_lease=HOUR), return_exceptions=True
    )
    assert isinstance(refused, Exception)
    assert "is numbered" in str(refused)
    assert isinstance(stored, list)
    assert ids_of(stored) == [other.id]
    assert await each.row(plain.id) is None


async def test_one_that_exists_is_named_and_the_others_of_the_batch_are_stored(each: World) -> None:
    store = await each.worker()
    [known] = await sent(store)
    others = [new_job(group="g") for _ in range(3)]
    sendings = [[others[0]], [known], [others[1], others[2]]]
    answers = await asyncio.gather(*(store.insert(s, publish_lease=HOUR) for s in sendings), return_exceptions=True)
    assert [str(answer) for answer in answers if isinstance(answer, StoreError)] == [
        f"A job {known.id} exists already."
    ]
    assert await order_of(store) == ids_of([known, *others])
    assert await is_counted(each)


async def test_group_whose_row_was_lost_is_counted_anew(each: World) -> None:
    store = await each.worker()
    jobs = await sent(store, 3)
    await each.execute(sa.delete(each.tables.groups))
    jobs += await sent(store, 2)
    assert await states(each, jobs) == ["queued"] + ["waiting"] * 4
    assert await is_counted(each)


async def test_many_that_send_to_the_same_new_groups_at_once_make_each_once(pg: World) -> None:
    stores = [await pg.worker() for _ in range(4)]
    names = [f"g{n}" for n in range(20)]

    async def send(store: SqlStore, order: list[str]) -> None:
        for _ in range(5):
            ids = job_ids(len(order))
            jobs = [new_job(job_id, group=name) for job_id, name in zip(ids, order, strict=True)]
            await store.insert(jobs, publish_lease=MINUTE)

    orders = [names, names[::-1], names[::2] + names[1::2], names[10:] + names[:10]]
    await asyncio.gather(*(send(store, order) for store, order in zip(stores, orders, strict=True)))
    assert await wrong_in(pg) == []
    g = pg.tables.groups.c
    rows = await pg.execute(sa.select(g.held, g.waiting))
    assert [tuple(row) for row in rows] == [(1, 19)] * 20


async def test_when_the_answer_is_lost_it_is_said_that_they_may_be_stored(
    pg: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await pg.worker()
    autocommit = store._db.autocommit

    async def lose_the_answer(*arguments: Any) -> None:
        assert await autocommit(*arguments) is not None

    monkeypatch.setattr(store._db, "autocommit", lose_the_answer)
    job = new_job(group="g")
    with pytest.raises(StoreUnknownError):
        await store.insert([job], publish_lease=HOUR)
    assert await states(pg, [job]) == ["queued"]
