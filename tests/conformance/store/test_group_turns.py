"""The end of a run gives the turn on: the next job is queued for anybody, or runs at once for the same worker."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa

from jq_actors.model.claim_rules import Verdict
from jq_actors.model.job import JobState
from jq_actors.model.outcome import Cancelled, Failed, Failure, Outcome, Retrying, Snoozed, Succeeded, Unhandled
from jq_actors.store.records import Dispatch, NextJob, Settled, Settlement
from jq_actors.store.sql import SqlStore

from .grouped import HOUR, numbered, numbers, sent, states, with_rule
from .stores import World, clock, got, granted, queued, state_of
from .turns import FITS, a_chain, asks, ends, goes_on, runs

FAILURE = Failure(None, "ValueError: no")
FREEING: list[Outcome] = [Succeeded(), Failed(FAILURE), Cancelled("asked to")]
KEEPING: list[Outcome] = [Retrying(FAILURE, HOUR), Snoozed(HOUR), Unhandled("no actor")]


async def _nothing(*_arguments: Any) -> None:
    """Let it be."""


async def chaining(db: World, **values: Any) -> SqlStore:
    """A worker that can run what comes next."""
    store = await db.worker()
    store.fits = FITS
    with_rule(store, **values)
    return store


def followed(settled: Settled) -> NextJob:
    assert settled.next is not None
    return settled.next


# -- released


@pytest.mark.parametrize("outcome", FREEING, ids=repr)
async def test_when_a_job_ends_the_next_one_is_queued_and_published_by_the_same_worker(
    each_way: World, outcome: Outcome
) -> None:
    store = await chaining(each_way)
    released: list[Dispatch] = []
    store.on_released = released.extend
    first, second, third = await sent(store, 3, body=b'{"args":["x"]}')
    assert await runs(store, first, outcome) == Settled(written=True)
    assert await states(each_way, [second, third]) == ["queued", "waiting"]
    assert released == [Dispatch(second.id, 2, "mail", b'{"args":["x"]}', 0, "g")]
    row = await each_way.the_row(second.id)
    assert row.publish_at > clock.wall()
    # It is leased to this worker, who marks it.
    assert await store.take_unpublished(None, 10, HOUR) == []
    await store.mark_published(numbers(released))
    assert (await each_way.the_row(second.id)).published_at is not None


@pytest.mark.parametrize("outcome", KEEPING, ids=repr)
async def test_what_does_not_end_keeps_its_place(each_way: World, outcome: Outcome) -> None:
    store = await chaining(each_way)
    first, second = await sent(store, 2)
    assert await runs(store, first, outcome, chain=a_chain()) == Settled(written=True)
    assert await states(each_way, [second]) == ["waiting"]


async def test_released_job_that_nobody_publishes_is_a_relays_when_its_lease_is_over(each_way: World) -> None:
    store = await chaining(each_way)
    first, second = await sent(store, 2)
    await runs(store, first)
    await each_way.change(second.id, publish_at=clock.wall())
    assert numbers(await store.take_unpublished(None, 10, HOUR)) == [(second.id, 2)]


async def test_in_a_paused_group_nobody_follows(each_way: World) -> None:
    store = await chaining(each_way)
    first, second = await sent(store, 2)
    request = asks(first)
    answer = await store.claim(request)
    await store.pause_group("g", "by ops")
    assert await ends(store, request, answer, chain=a_chain()) == Settled(written=True)
    assert await states(each_way, [first, second]) == ["succeeded", "waiting"]


async def test_each_place_that_gets_free_is_given_on(each_way: World) -> None:
    store = await chaining(each_way, concurrency=3)
    jobs = await sent(store, 8)
    requests = [asks(job) for job in jobs[:3]]
    answers = [await store.claim(request) for request in requests]
    ending = zip(requests, answers, strict=True)
    await asyncio.gather(*(ends(store, request, answer) for request, answer in ending))
    assert await states(each_way, jobs[3:]) == ["queued"] * 3 + ["waiting"] * 2


async def test_settlements_of_several_groups_in_one_commit(each_way: World) -> None:
    store = await chaining(each_way)
    names = [f"g{n}" for n in range(12)]
    jobs = [await sent(store, 2, name) for name in names]
    [alone] = await queued(store)
    requests = [asks(first) for first, _ in jobs]
    answers = await asyncio.gather(*(store.claim(request) for request in requests))
    token = await granted(store, alone)
    wishes = [a_chain() if n % 2 else None for n in range(12)]
    now = store.now()
    settled = await asyncio.gather(
        store.settle(Settlement(alone.id, token, Succeeded(), now, now)),
        *(ends(store, ask, answer, chain=wish) for ask, answer, wish in zip(requests, answers, wishes, strict=True)),
    )
    assert [answer.next and answer.next.job_id for answer in settled[1:]] == [
        second.id if wish else None for (_, second), wish in zip(jobs, wishes, strict=True)
    ]
    assert await states(each_way, [second for _, second in jobs]) == ["queued", "running"] * 6


# -- chained


async def test_next_job_runs_at_once_for_the_worker_that_wants_it(each_way: World) -> None:
    store = await chaining(each_way)
    [first], [second], [third] = await sent(store), await sent(store, body=b'{"args":["second"]}'), await sent(store)
    wish = a_chain()
    settled = await runs(store, first, chain=wish)
    assert settled.next == NextJob(second.id, 2, wish.run_token, 1, 0, "mail", "g", b'{"args":["second"]}')
    row = await each_way.the_row(second.id)
    assert (state_of(row), row.run_token, row.worker_id) == (JobState.RUNNING, wish.run_token, store._workers.my_id)
    assert (row.publish_at, row.parked_at, row.reason) == (None, None, None)
    assert row.started_at is not None
    assert await states(each_way, [third]) == ["waiting"]
    # Its outcome goes under the token that it was given, and the third one follows it.
    assert followed(await goes_on(store, followed(settled), chain=a_chain())).job_id == third.id
    found = await got(store, second)
    assert (found.state, [run.number for run in found.attempts]) == (JobState.SUCCEEDED, [1])


@pytest.mark.parametrize("misfit", ["queue", "actor", "slot", "no wish", "nothing fits"])
async def test_next_job_is_chained_only_where_it_fits(each_way: World, misfit: str) -> None:
    store = await chaining(each_way)
    [first] = await sent(store)
    queue, actor = "heavy" if misfit == "queue" else "mail", "another" if misfit == "actor" else "send_mail"
    [second] = await sent(store, queue=queue, actor=actor)
    wish = {"slot": a_chain("threads"), "no wish": None}.get(misfit, a_chain())
    if misfit == "nothing fits":
        store.fits = {}
    assert (await runs(store, first, chain=wish)).next is None
    assert await states(each_way, [second]) == ["queued"]


async def test_each_slot_has_what_fits_there(each_way: World) -> None:
    store = await chaining(each_way)
    store.fits = {"a": frozenset({("mail", "x")}), "b": frozenset({("mail", "y"), ("heavy", "x")})}
    first, second, third = [(await sent(store, actor=actor, queue=queue))[0] for actor, queue in _KINDS]
    settled = await runs(store, first, chain=a_chain("b"))
    assert followed(settled).job_id == second.id
    settled = await goes_on(store, followed(settled), chain=a_chain("b"))
    assert followed(settled).job_id == third.id


_KINDS = (("x", "mail"), ("y", "mail"), ("x", "heavy"))


async def test_chains_beside_each_other_go_on_with_different_jobs(each_way: World) -> None:
    store = await chaining(each_way, concurrency=2)
    jobs = await sent(store, 5)
    requests = [asks(job) for job in jobs[:2]]
    answers = [await store.claim(request) for request in requests]
    settled = await asyncio.gather(
        *(ends(store, *each, chain=a_chain()) for each in zip(requests, answers, strict=True))
    )
    assert {followed(each).job_id for each in settled} == {jobs[2].id, jobs[3].id}
    assert await states(each_way, jobs) == ["succeeded"] * 2 + ["running"] * 2 + ["waiting"]


async def test_worker_whose_row_is_gone_claims_nothing(pg: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was taken for lost; what it would claim nobody would watch."""
    store, other = await chaining(pg), await pg.worker()
    first, second = await sent(store, 2)
    request = asks(first)
    answer = await store.claim(request)
    monkeypatch.setattr(store._workers, "hold", _nothing)  # nor does it make its row again just now
    await pg.execute(sa.delete(pg.tables.workers).where(pg.tables.workers.c.id == store._workers.my_id))
    assert (await ends(store, request, answer, chain=a_chain())).next is None
    assert await states(pg, [second]) == ["queued"]
    assert (await other.claim(asks(second, dispatch=2))).verdict is Verdict.GRANT


async def test_numbered_jobs_follow_each_other_up_to_the_one_that_is_missing(each_way: World) -> None:
    store = await chaining(each_way)
    one, two, four = await numbered(store, 1, 2, 4)
    settled = await runs(store, one, chain=a_chain())
    assert followed(settled).job_id == two.id
    assert (await goes_on(store, followed(settled), chain=a_chain())).next is None
    assert await states(each_way, [four]) == ["waiting"]


async def test_job_without_a_payload_blocks_its_group_and_nobody_runs_it(each_way: World) -> None:
    store = await chaining(each_way)
    first, second, third = await sent(store, 3)
    await each_way.execute(sa.delete(each_way.tables.payloads).where(each_way.tables.payloads.c.job_id == second.id))
    settled = await runs(store, first, chain=a_chain())
    if settled.next is not None:  # there is nothing to decode, which whoever leads it settles so
        await goes_on(store, settled.next, Unhandled("no JSON"))
    assert await states(each_way, [second, third]) == ["unhandled", "waiting"]
