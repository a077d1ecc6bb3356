"""What happens to a group between the look of a claim, which locks nothing, and its change: see `GroupGrants`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa
from jq_actors.store.group_grants import Granted, GroupStart
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.job import JobId, JobState
from jq_actors.protocol import Verdict
from jq_actors.store.records import NewJob
from jq_actors.store.sql import SqlStore
from tests.support.waiting import eventually

from .grouped import numbered, sent, states
from .stores import World, verdicts
from .turns import asks, ends, runs, started


class Between:
    """Does something after the first look of a claim, before its change, and counts the changes that are tried."""

    def __init__(self, store: SqlStore, monkeypatch: pytest.MonkeyPatch, do: Callable[[], Awaitable[Any]]) -> None:
        self.tries: list[int] = []
        """How many jobs each wanted to start."""
        self._do, self._done = do, False
        grants = store._claims._groups._grants
        self._write = grants.write
        monkeypatch.setattr(grants, "write", self.write)

    async def write(
        self, connection: AsyncConnection, starts: Mapping[int, GroupStart], now: datetime
    ) -> dict[int, Granted]:
        if starts:
            self.tries.append(len(starts))
        if not self._done:
            self._done = True
            await self._do()
        return await self._write(connection, starts, now)


async def test_nothing_happens(pg: World, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await pg.worker()
    [job] = await sent(store)
    between = Between(store, monkeypatch, lambda: asyncio.sleep(0))
    assert await _starts(store, job) == job.id
    assert between.tries == [1]


async def test_another_job_was_granted(pg: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It came to the front, and its claim is committed."""
    store, other = await pg.worker(), await pg.worker()
    first, second = await sent(store, 2)

    async def the_second_starts() -> None:
        await pg.change(second.id, order_key=-1)
        assert (await other.claim(asks(second))).verdict is Verdict.GRANT

    between = Between(store, monkeypatch, the_second_starts)
    assert (await store.claim(asks(first))).verdict is Verdict.HOLD
    assert await states(pg, [first, second]) == ["queued", "running"]
    assert between.tries == [1]


async def test_another_job_has_come_and_gone(pg: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the place of the old version of the row was used again."""
    store, other = await pg.worker(), await pg.worker()
    zeroth, first = await sent(store, 2)

    async def others_run_twice() -> None:
        for _ in range(2):
            await pg.change(zeroth.id, state="queued", final_state=None)
            assert await runs(other, zeroth) == zeroth.id
            async with pg._engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
                await connection.execute(sa.text(f"VACUUM {pg.tables.groups.name}"))
        await pg.change(zeroth.id, state="queued", final_state=None)

    await pg.change(zeroth.id, state="succeeded", final_state="succeeded")
    between = Between(store, monkeypatch, others_run_twice)
    # It is there again, before the first one; only the second look saw it.
    assert await _starts(store, first) == zeroth.id
    assert between.tries == [1, 1]


async def test_group_was_paused(pg: World, monkeypatch: pytest.MonkeyPatch) -> None:
    store, other = await pg.worker(), await pg.worker()
    [job] = await sent(store)
    Between(store, monkeypatch, lambda: other.pause_group("g", "their API is down"))
    answer = await store.claim(asks(job))
    assert (answer.verdict, answer.reason) == (Verdict.LEAVE, "their API is down")
    assert await states(pg, [job]) == ["queued"]


async def test_another_job_was_moved_to_the_front(pg: World, monkeypatch: pytest.MonkeyPatch) -> None:
    store, other = await pg.worker(), await pg.worker()
    first, second = await sent(store, 2)
    between = Between(store, monkeypatch, lambda: other.move(second.id, None))
    assert await _starts(store, first) == second.id
    assert between.tries == [1, 1]


async def test_job_was_moved_into_a_group_that_is_busy(pg: World, monkeypatch: pytest.MonkeyPatch) -> None:
    store, other = await pg.worker(), await pg.worker()
    [job] = await sent(store)
    [busy] = await sent(store, group="busy")
    assert (await other.claim(asks(busy))).verdict is Verdict.GRANT
    Between(store, monkeypatch, lambda: other.move(job.id, "busy"))
    assert (await store.claim(asks(job))).verdict is Verdict.DROP_STALE
    assert await states(pg, [job, busy]) == ["queued", "running"]


async def test_job_was_cancelled(pg: World, monkeypatch: pytest.MonkeyPatch) -> None:
    store, other = await pg.worker(), await pg.worker()
    [job] = await sent(store)
    Between(store, monkeypatch, lambda: other.cancel_group("g", "no more"))
    assert (await store.claim(asks(job))).verdict is Verdict.DROP_FINAL
    assert await states(pg, [job]) == ["cancelled"]


async def test_row_of_the_group_was_lost(pg: World, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await pg.worker()
    [job] = await sent(store)
    between = Between(store, monkeypatch, lambda: pg.execute(sa.delete(pg.tables.groups)))
    assert await _starts(store, job) == job.id
    assert between.tries == [1, 1]


async def test_other_groups_of_the_batch_are_granted_all_the_same(pg: World, monkeypatch: pytest.MonkeyPatch) -> None:
    store, other = await pg.worker(), await pg.worker()
    jobs = [(await sent(store, group=f"group {n}"))[0] for n in range(5)]
    between = Between(store, monkeypatch, lambda: other.pause_group("group 3", "stop"))
    answers = await asyncio.gather(*(store.claim(asks(job)) for job in jobs))
    assert verdicts(answers) == [Verdict.GRANT] * 3 + [Verdict.LEAVE, Verdict.GRANT]
    assert between.tries == [5]


@pytest.mark.parametrize("commits", [True, False])
async def test_another_transaction_holds_the_group(pg: World, commits: bool) -> None:
    """The change waits for it, and counts only if it has changed nothing."""
    store = await pg.worker()
    [job] = await sent(store)
    groups = pg.tables.groups
    async with pg._engine.connect() as connection:
        await connection.execute(sa.update(groups).values(paused_at=sa.func.now(), paused_reason="stop"))
        claim = asyncio.ensure_future(store.claim(asks(job)))
        await eventually(lambda: _waits_for_a_lock(pg), 20, "the claim to wait")
        assert not claim.done()
        await (connection.commit() if commits else connection.rollback())
    assert (await claim).verdict is (Verdict.LEAVE if commits else Verdict.GRANT)


async def _starts(store: SqlStore, job: NewJob) -> JobId:
    """Which job a delivery of ``job`` starts."""
    request = asks(job)
    return started(request, await store.claim(request))


async def _waits_for_a_lock(pg: World) -> bool:
    return bool(await pg.execute(sa.text("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'")))


async def test_number_that_came_meanwhile_is_not_passed(pg: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers are read by statements of their own, so a numbered group is looked at under its lock only."""
    store = await pg.worker()
    [second] = await numbered(store, 2)
    came: list[NewJob] = []

    async def the_first_comes() -> None:
        came.extend(await numbered(store, 1))

    between = Between(store, monkeypatch, the_first_comes)
    assert await _starts(store, second) == came[0].id
    assert between.tries == [1]


async def test_runs_that_a_look_does_not_meet_are_counted(pg: World) -> None:
    """The first one in order came late, while the one behind it already ran: its group names that one."""
    store = await pg.worker()
    late, second = await sent(store, 2)
    await pg.change(late.id, group_key=None)
    request = asks(second)
    answer = await store.claim(request)
    await pg.change(late.id, group_key="g")
    assert (await store.claim(asks(late))).verdict is Verdict.HOLD
    await ends(store, request, answer)
    assert await runs(store, late) == late.id


async def test_settlement_passes_what_is_parked_on(pg: World) -> None:
    """What waits for it is released with it, not some time later."""
    store = await pg.worker()
    first, second = await _in_two_queues(store)
    request = asks(first)
    answer = await store.claim(request)
    assert (await store.claim(asks(second))).verdict is Verdict.PARK
    await ends(store, request, answer)
    assert await store.count_by_state() == {JobState.SUCCEEDED: 1, JobState.QUEUED: 1}


async def _in_two_queues(store: SqlStore) -> list[NewJob]:
    return [(await sent(store, queue=queue))[0] for queue in ("mail", "import")]
