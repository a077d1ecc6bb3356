"""Settlements in groups that are written twice, too late, or for nobody: each turn is given once."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from jq_actors.model.claim_rules import Verdict
from jq_actors.model.job import JobState
from jq_actors.model.outcome import Succeeded
from jq_actors.store.records import Chain, NewJob, Settled, Settlement
from jq_actors.store.sql import SqlStore
from tests.support.waiting import eventually

from .grouped import sent, states
from .stores import World, got, state_of
from .turns import FITS, a_chain, asks


async def begun(store: SqlStore, job: NewJob, chain: Chain | None = None) -> Settlement:
    """``job`` runs; the settlement that ends it, and wishes to go on."""
    store.fits = FITS
    request = asks(job)
    answer = await store.claim(request)
    assert answer.verdict is Verdict.GRANT
    now = store.now()
    return Settlement(job.id, request.run_token, Succeeded(1), now, now, group="g", chain=chain or a_chain())


async def written(store: SqlStore, settlement: Settlement, *, again: bool) -> Settled:
    """``again``: an earlier try may have been committed."""
    now = store.now()
    batch = await store._settles.commit([settlement], now, now, may_be_committed=again)
    [settled] = batch.answers([settlement])
    return settled


def follower(settled: Settled) -> str:
    assert settled.next is not None
    return settled.next.job_id


async def test_answer_that_was_lost_is_found_again_with_the_job_that_follows(each_way: World) -> None:
    store = await each_way.worker()
    first, second, third = await sent(store, 3)
    settlement = await begun(store, first)
    once = await written(store, settlement, again=False)
    again = await written(store, settlement, again=True)
    assert (once, follower(again)) == (again, second.id)
    assert await states(each_way, [second, third]) == ["running", "waiting"]
    assert len((await got(store, first)).attempts) == 1


async def test_answer_that_was_lost_names_no_job_that_another_worker_has_by_now(each_way: World) -> None:
    store, other = await each_way.worker(), await each_way.worker()
    first, second = await sent(store, 2)
    settlement = await begun(store, first)
    assert follower(await written(store, settlement, again=False)) == second.id
    await each_way.change(second.id, worker_id="gone")
    assert (await other.claim(asks(second, dispatch=2))).verdict is Verdict.GRANT
    assert await written(store, settlement, again=True) == Settled(written=True)


async def test_outcome_of_a_run_that_was_lost_gives_nothing_on(each_way: World) -> None:
    store, other = await each_way.worker(), await each_way.worker()
    first, second = await sent(store, 2)
    late = await begun(store, first)
    await each_way.change(first.id, worker_id="gone")
    assert (await other.claim(asks(first))).verdict is Verdict.GRANT
    assert await store.settle(late) == Settled(written=False)
    assert await states(each_way, [first, second]) == ["running", "waiting"]


async def test_of_two_outcomes_of_one_run_the_first_stands_and_gives_one_turn(each_way: World) -> None:
    store = await each_way.worker()
    first, second, third = await sent(store, 3)
    outcome = await begun(store, first)
    other = replace(outcome, outcome=Succeeded(2), chain=a_chain())
    settled = await asyncio.gather(store.settle(outcome), store.settle(other))
    assert [each.written for each in settled] == [True, False]
    assert follower(settled[0]) == second.id
    assert settled[1].next is None
    assert await states(each_way, [third]) == ["waiting"]
    assert (await got(store, first)).result == 1


async def test_follower_whose_caller_is_gone_is_given_back(each_way: World) -> None:
    store = await each_way.worker()
    first, second = await sent(store, 2)
    caller = asyncio.ensure_future(store.settle(await begun(store, first)))
    await asyncio.sleep(0)
    caller.cancel()

    async def given_back() -> bool:
        row = await each_way.the_row(second.id)
        return state_of(row) is JobState.QUEUED and row.run_token is not None

    await eventually(given_back, 20, "the job to be given back")
    row = await each_way.the_row(second.id)
    assert (row.dispatch, row.attempt) == (2, 0)
    assert row.publish_at <= store.now(), "any relay publishes it"
