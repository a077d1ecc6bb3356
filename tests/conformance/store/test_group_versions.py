"""What others change in a group while the end of a run waits for its row: the turn goes to whose it is after that."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.model.claim_rules import Verdict
from jq_actors.model.job import JobId, JobState
from jq_actors.model.outcome import Failed, Failure, Retrying
from jq_actors.store.claims.settles import SettledBatch
from jq_actors.store.records import Claim, ClaimRequest, JobFilter, NewJob, Settled
from jq_actors.store.sql import SqlStore

from .grouped import HOUR, numbered, sent, states, with_rule
from .locking import Held, group_held, somebody_waits
from .places import wrong_in
from .stores import World, clock, verdicts
from .turns import FITS, a_chain, asks, ends, runs

FAILURE = Failure(None, "ValueError: no")


class Settling:
    """A run that ends, and goes on, while another store is in the middle of a change."""

    def __init__(self, pg: World, store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pg, self.store = pg, store
        self.in_transactions = 0
        """How many settlements were not written by their own statement."""
        self.monkeypatch, write = monkeypatch, store._settles.write
        store.fits = FITS

        async def counted(connection: AsyncConnection, settlements: Any, *rest: Any, **options: Any) -> Any:
            self.in_transactions += len(settlements)
            return await write(connection, settlements, *rest, **options)

        monkeypatch.setattr(store._settles, "write", counted)

    async def during(
        self, other: SqlStore, change: Awaitable[object], request: ClaimRequest, answer: Claim
    ) -> JobId | None:
        """Who follows the run of ``request``, which ends while ``change``, by ``other``, is not committed yet."""
        held = Held(other, self.monkeypatch)
        changing = asyncio.ensure_future(change)
        await held.is_done.wait()
        settling = asyncio.ensure_future(ends(self.store, request, answer, chain=a_chain()))
        await somebody_waits(self.pg)
        assert not settling.done()
        held.may_commit.set()
        await changing
        settled: Settled = await settling
        assert await wrong_in(self.pg) == []
        return None if settled.next is None else settled.next.job_id


@pytest.fixture
async def settling(pg: World, monkeypatch: pytest.MonkeyPatch) -> Settling:
    return Settling(pg, await pg.worker(), monkeypatch)


async def started(store: SqlStore, job: NewJob) -> tuple[ClaimRequest, Claim]:
    request = asks(job)
    answer = await store.claim(request)
    assert answer.verdict is Verdict.GRANT
    return request, answer


async def test_job_that_is_moved_to_the_front_is_not_passed_by(pg: World, settling: Settling) -> None:
    store, other = settling.store, await pg.worker()
    first, second, third = await sent(store, 3)
    run = await started(store, first)
    assert await settling.during(other, other.move(third.id, None), *run) == third.id
    assert await states(pg, [second]) == ["waiting"]
    assert settling.in_transactions == 1


async def test_job_that_is_sent_to_an_empty_group_is_seen(pg: World, settling: Settling) -> None:
    """Else it would wait in a group of which nothing runs."""
    store, other = settling.store, await pg.worker()
    [first] = await sent(store)
    run = await started(store, first)
    second: list[NewJob] = []

    async def send() -> None:
        second.extend(await sent(other))

    # So that it is a transaction, which can be held.
    settling.monkeypatch.setattr(other._grouped_inserts, "try_write", _nothing)
    follower = await settling.during(other, send(), *run)
    assert follower == second[0].id


async def test_number_that_comes_is_not_passed_by(pg: World, settling: Settling) -> None:
    store, other = settling.store, await pg.worker()
    one, three = await numbered(store, 1, 3)
    request = asks(one, dispatch=2)
    run = request, await store.claim(request)
    two: list[NewJob] = []

    async def send() -> None:
        two.extend(await numbered(other, 2))

    assert await settling.during(other, send(), *run) == two[0].id
    assert await states(pg, [three]) == ["waiting"]


async def test_in_a_group_that_is_paused_nobody_follows(pg: World, settling: Settling) -> None:
    store, other = settling.store, await pg.worker()
    first, second = await sent(store, 2)
    run = await started(store, first)
    assert await settling.during(other, other.pause_group("g", "stop"), *run) is None
    assert await states(pg, [first, second]) == ["succeeded", "waiting"]


async def test_in_a_group_that_is_resumed_the_next_one_follows(pg: World, settling: Settling) -> None:
    store, other = settling.store, await pg.worker()
    first, second = await sent(store, 2)
    run = await started(store, first)
    await store.pause_group("g", "stop")
    assert await settling.during(other, other.resume_group("g"), *run) == second.id


async def test_job_that_is_cancelled_does_not_follow(pg: World, settling: Settling) -> None:
    store, other = settling.store, await pg.worker()
    first, second = await sent(store, 2)
    run = await started(store, first)
    assert await settling.during(other, other.cancel_group("g", "stop"), *run) is None
    assert await states(pg, [first, second]) == ["succeeded", "cancelled"]


async def test_job_that_is_moved_away_does_not_follow(pg: World, settling: Settling) -> None:
    store, other = settling.store, await pg.worker()
    first, second, third = await sent(store, 3)
    run = await started(store, first)
    assert await settling.during(other, other.move(second.id, "another"), *run) == third.id
    assert await states(pg, [second]) == ["queued"]


async def test_job_that_is_retried_in_its_old_place_comes_before_those_behind_it(pg: World, settling: Settling) -> None:
    store, other = settling.store, await pg.worker()
    zeroth, first, second = await sent(store, 3)
    await runs(store, zeroth, Failed(FAILURE))
    request = asks(first, dispatch=2)
    run = request, await store.claim(request)
    assert await settling.during(other, other.retry(JobFilter(group="g"), [], 9), *run) == zeroth.id
    assert await states(pg, [second]) == ["waiting"]


async def test_overtaken_job_that_becomes_due_comes_before_those_behind_it(pg: World, settling: Settling) -> None:
    store, other = settling.store, await pg.worker()
    for each in (store, other):
        with_rule(each, overtake=True)
    zeroth, first, second = await sent(store, 3)
    await runs(store, zeroth, Retrying(FAILURE, HOUR))
    request = asks(first, dispatch=2)
    run = request, await store.claim(request)
    await pg.change(zeroth.id, wake_at=clock.wall())
    assert await settling.during(other, other._group_due.take(9, clock.wall(), clock.wall()), *run) == zeroth.id
    assert await states(pg, [second]) == ["waiting"]


async def test_runs_that_end_at_once_for_two_workers_let_different_ones_follow(pg: World, settling: Settling) -> None:
    store, other = settling.store, await pg.worker()
    other.fits = FITS
    for each in (store, other):
        with_rule(each, concurrency=2)
    first, second, third, fourth, fifth = await sent(store, 5)
    run, others = await started(store, first), await started(other, second)
    followers: list[Settled] = []

    async def end() -> None:
        followers.append(await ends(other, *others, chain=a_chain()))

    # So that it is a transaction, which can be held.
    settling.monkeypatch.setattr(other._settles, "try_fast_path", _nothing_settled)
    follower = await settling.during(other, end(), *run)
    assert followers[0].next is not None
    assert {follower, followers[0].next.job_id} == {third.id, fourth.id}
    assert await states(pg, [fifth]) == ["waiting"]


async def test_change_that_comes_to_nothing_is_none(pg: World, settling: Settling) -> None:
    store = settling.store
    first, second = await sent(store, 2)
    run = await started(store, first)
    async with group_held(pg) as connection:
        await connection.execute(sa.update(pg.tables.groups).values(version=99, paused_at=clock.wall()))
        ending = asyncio.ensure_future(ends(store, *run, chain=a_chain()))
        await somebody_waits(pg)
        await connection.rollback()
    settled = await ending
    assert settled.next is not None
    assert settled.next.job_id == second.id
    assert settling.in_transactions == 0


async def test_other_groups_of_the_batch_are_not_held_up_by_one_that_has_changed(pg: World, settling: Settling) -> None:
    store, other = settling.store, await pg.worker()
    jobs = [await sent(store, 2, f"g{n}") for n in range(5)]
    each = [await started(store, first) for first, _ in jobs]
    held = Held(other, settling.monkeypatch)
    pausing = asyncio.ensure_future(other.pause_group("g3", "stop"))
    await held.is_done.wait()
    ending = asyncio.gather(*(ends(store, *run, chain=a_chain()) for run in each))
    await somebody_waits(pg)
    held.may_commit.set()
    await pausing
    assert [settled.next is not None for settled in await ending] == [True, True, True, False, True]
    # All but the first went in one batch; only that of the group that has changed needed more.
    assert settling.in_transactions == 1
    assert await wrong_in(pg) == []


# -- claims take no lock of groups


async def test_claim_that_is_quicker_than_a_move_keeps_its_place(pg: World, monkeypatch: pytest.MonkeyPatch) -> None:
    store, other = await pg.worker(), await pg.worker()
    first, second, third = await sent(store, 3)
    withdrawn, answers = other._turns._withdrawn, list[Claim]()

    async def claimed_before(*arguments: Any) -> Any:
        answers.append(await store.claim(asks(first)))
        return await withdrawn(*arguments)

    monkeypatch.setattr(other._turns, "_withdrawn", claimed_before)
    assert await other.move(third.id, None) is JobState.WAITING
    assert verdicts(answers[:1]) == [Verdict.GRANT]
    assert await states(pg, [first, second, third]) == ["running", "waiting", "waiting"]
    assert await wrong_in(pg) == []


async def test_claim_that_is_slower_than_a_move_is_of_a_stale_copy(pg: World, monkeypatch: pytest.MonkeyPatch) -> None:
    store, other = await pg.worker(), await pg.worker()
    first, second = await sent(store, 2)
    held = Held(other, monkeypatch)
    moving = asyncio.ensure_future(other.move(second.id, None))
    await held.is_done.wait()
    claiming = asyncio.ensure_future(store.claim(asks(first)))
    await somebody_waits(pg)
    held.may_commit.set()
    await moving
    assert (await claiming).verdict is Verdict.DROP_STALE
    assert await states(pg, [first, second]) == ["waiting", "queued"]
    assert await wrong_in(pg) == []


@pytest.mark.parametrize("what", ["move", "pause", "cancel"])
async def test_racing_claims_and_changes_agree(led: World, what: str) -> None:
    store, other = await led.worker(), await led.worker()
    for n in range(12):
        name = f"g{n}"
        first, second = await sent(store, 2, name)
        changes: dict[str, Callable[[], Awaitable[object]]] = {
            "move": partial(other.move, second.id, None),
            "pause": partial(other.pause_group, name, "stop"),
            "cancel": partial(other.cancel_group, name, "stop"),
        }
        claim, _ = await asyncio.gather(store.claim(asks(first)), changes[what]())
        expected = {"move": ["waiting", "queued"], "pause": ["waiting"] * 2, "cancel": ["cancelled"] * 2}[what]
        if claim.verdict is Verdict.GRANT:
            expected = ["running", "cancelled" if what == "cancel" else "waiting"]
        assert await states(led, [first, second]) == expected


async def test_run_behind_which_an_earlier_one_waits_loses_its_place_when_it_does_not_end(pg: World) -> None:
    """It was moved before the run; a retry of the run must not keep the place."""
    store = await pg.worker()
    first, second = await sent(store, 2)
    request = asks(first)
    answer = await store.claim(request)
    await store.move(second.id, None)
    assert await states(pg, [first, second]) == ["running", "waiting"]
    await ends(store, request, answer, Retrying(FAILURE, HOUR))
    assert await states(pg, [first, second]) == ["retrying", "queued"]
    await runs(store, second)
    row = await pg.the_row(first.id)
    assert (row.state, row.has_place) == (JobState.RETRYING, True)
    assert await wrong_in(pg) == []


async def _nothing(*_arguments: Any) -> None:
    """Leave all to what comes next."""


async def _nothing_settled(*_arguments: Any) -> SettledBatch:
    """Leave all to a transaction."""
    return SettledBatch()
