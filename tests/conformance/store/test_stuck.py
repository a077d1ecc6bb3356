"""One write among many cannot be made, whatever the reason: the others are, and it gets its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from jq_actors.errors import StoreError, StoreUnavailableError
from jq_actors.events import StoreRefused
from jq_actors.model.claim_rules import Verdict
from jq_actors.model.job import JobId
from jq_actors.model.outcome import Failed, Failure, Succeeded
from jq_actors.store.batching import set_aside
from jq_actors.store.database.dialects import PostgreSQL
from jq_actors.store.sql import SqlStore
from tests.support.waiting import eventually

from .stores import TABLE, World, got, granted, new_job, queued, request_of, settled

STATES = ["57014", "42703", "54000", "XX000", "P0001"]
"""Of PostgreSQL's errors some that do not say whether the row is at fault."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(set_aside, "MAX_BACKOFF", 0.05)


async def test_refused_claim_beside_granted_ones_gets_its_error_alone(db: World) -> None:
    """The granted ones are committed before the rest is refused (PostgreSQL)."""
    store = await db.worker()
    jobs = await queued(store, 3)
    foreign = request_of(new_job(priority=1 << 40), promised=False)
    answers = await asyncio.gather(
        *(store.claim(request_of(job)) for job in jobs), store.claim(foreign), return_exceptions=True
    )
    assert [answer.verdict for answer in answers[:3] if not isinstance(answer, BaseException)] == [Verdict.GRANT] * 3
    if db.url.startswith("postgresql"):  # SQLite stores any integer in a SMALLINT
        assert isinstance(answers[3], StoreError)
        assert not isinstance(answers[3], StoreUnavailableError)
    [late] = await queued(store)
    assert await granted(store, late)


async def test_outcome_that_is_refused_after_an_outage_gets_its_error_alone(
    db: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await db.worker()
    bad, good = await queued(store, 2)
    tokens = [await granted(store, job) for job in (bad, good)]
    _fail_once(store, monkeypatch)
    answers = await asyncio.gather(
        settled(store, bad, tokens[0], Succeeded(object())),
        settled(store, good, tokens[1], Succeeded(1)),
        return_exceptions=True,
    )
    assert isinstance(answers[0], StoreError)
    assert not isinstance(answers[0], StoreUnavailableError)
    assert answers[1] is True
    assert await settled(store, bad, tokens[0], Failed(Failure(None, "no")))


async def test_outcome_that_the_database_cannot_write_gets_its_error_alone(db: World) -> None:
    await _give_up_one_of_many(db, "53400")


@pytest.mark.parametrize("state", STATES)
async def test_whatever_the_database_says_of_it(pg: World, state: str) -> None:
    await _give_up_one_of_many(pg, state)


async def test_claim_that_the_database_cannot_write_is_to_come_again(db: World) -> None:
    """Nobody buries its delivery, and another try may well succeed."""
    store = await db.worker()
    [bad] = await queued(store)
    async with _Broken(db, bad.id, "53400"):
        claim = asyncio.ensure_future(store.claim(request_of(bad)))

        async def given_up() -> bool:
            [other] = await queued(store)
            assert await granted(store, other)
            return claim.done()

        await eventually(given_up, 20, "the claim to be given up")
        with pytest.raises(StoreUnavailableError, match="Others can be written, but this claim cannot"):
            await claim
    assert await granted(store, bad)


async def test_row_that_somebody_keeps_locked_holds_up_nobody_else(pg: World, monkeypatch: pytest.MonkeyPatch) -> None:
    session = [*PostgreSQL._SESSION, "SET lock_timeout = '100ms'"]
    monkeypatch.setattr(PostgreSQL, "_SESSION", tuple(session))
    monkeypatch.setattr(set_aside, "STRIKES", 1000)
    store = await pg.worker()
    [locked], others = await queued(store), await queued(store, 50)
    jobs = pg.tables.jobs
    async with pg._engine.begin() as operator:
        await operator.execute(sa.select(jobs.c.id).where(jobs.c.id == locked.id).with_for_update())
        claim = asyncio.ensure_future(store.claim(request_of(locked)))
        await asyncio.gather(*(granted(store, job) for job in others))
        assert not claim.done()
    assert (await claim).verdict is Verdict.GRANT


async def test_migration_waits_for_another_one_as_long_as_it_takes(pg: World) -> None:
    store = await pg.worker()

    async def lock_timeout(connection: Any) -> list[str]:
        query = sa.select(sa.func.current_setting("lock_timeout", type_=sa.Text))
        before = await connection.scalar(query)
        await store._db.dialect.lock_for_migration(connection, TABLE)
        return [before, await connection.scalar(query)]

    assert await store._db.write(lock_timeout) == ["5s", "0"]


async def _give_up_one_of_many(db: World, state: str) -> None:
    store = await db.worker()
    refused = db.record(StoreRefused)
    jobs = await queued(store, 20)
    tokens = [await granted(store, job) for job in jobs]
    bad, token = jobs.pop(7), tokens.pop(7)
    async with _Broken(db, bad.id, state):
        end = asyncio.ensure_future(settled(store, bad, token, Succeeded(1)))
        others = (settled(store, job, token, Succeeded(1)) for job, token in zip(jobs, tokens, strict=True))
        assert await asyncio.gather(*others) == [True] * 19

        async def given_up() -> bool:
            [late] = await queued(store)
            assert await settled(store, late, await granted(store, late), Succeeded())
            return end.done()

        await eventually(given_up, 20, "the outcome to be given up")
        with pytest.raises(StoreError) as raised:
            await end
        assert not isinstance(raised.value, StoreUnavailableError)
        assert len(refused.of(StoreRefused)) == 1
    assert (await got(store, bad)).attempts == ()
    assert await settled(store, bad, token, Failed(Failure(None, "no")))


def _fail_once(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next write of outcomes fails, as in an outage."""
    write: Callable[..., Any] = store._settles.commit
    tries = list[bool]()

    async def flaky(*arguments: Any, may_be_committed: bool) -> Any:
        tries.append(may_be_committed)
        if len(tries) == 1:
            raise StoreUnavailableError("database is locked")
        return await write(*arguments, may_be_committed=may_be_committed)

    monkeypatch.setattr(store._settles, "commit", flaky)


class _Broken:
    """Each change of this job's row fails, with ``state`` on PostgreSQL."""

    def __init__(self, db: World, job_id: JobId, state: str) -> None:
        self._db, self._job_id, self._state = db, job_id, state
        self._is_postgres = db.url.startswith("postgresql")

    async def __aenter__(self) -> None:
        when = f"BEFORE UPDATE ON {TABLE} FOR EACH ROW WHEN (NEW.id = '{self._job_id}')"
        if self._is_postgres:
            raising = f"BEGIN RAISE EXCEPTION 'broken' USING ERRCODE = '{self._state}'; END"
            await self._run(f"CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$ {raising} $$")
            await self._run(f"CREATE TRIGGER broken {when} EXECUTE FUNCTION broken()")
        else:
            # An integer overflow, which SQLite tells as it tells a missing table.
            await self._run(f"CREATE TRIGGER broken {when} BEGIN SELECT abs(-9223372036854775808); END")

    async def __aexit__(self, *_: object) -> None:
        await self._run("DROP FUNCTION broken CASCADE" if self._is_postgres else "DROP TRIGGER broken")

    async def _run(self, statement: str) -> None:
        await self._db.execute(sa.text(statement))
