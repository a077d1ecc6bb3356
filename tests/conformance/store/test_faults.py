"""The database goes away in the middle of everything: nothing is lost, written twice, or left checked out."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Self

import pytest
import sqlalchemy as sa

from jq_actors.errors import StoreUnavailableError, StoreUnknownError
from jq_actors.events import StoreBack, StoreLost
from jq_actors.model.claim_rules import Verdict
from jq_actors.model.job import JobState
from jq_actors.model.outcome import Failed, Failure, Interrupted, Outcome, Succeeded
from jq_actors.store.database.dialects import PostgreSQL
from jq_actors.store.records import NewJob
from jq_actors.store.schema import migrate
from jq_actors.store.sql import SqlStore
from tests.support.postgres import PrivatePostgres
from tests.support.proxy import TcpProxy
from tests.support.waiting import eventually

from .stores import TABLE, World, clock, got, granted, job_ids, new_job, queued, request_of, settled, verdicts, world_on
from .turns import runs

DRIVERS = ["asyncpg", "psycopg"]
LANES = 100
"""Jobs of a `Flow` at once."""


@pytest.mark.parametrize("driver", DRIVERS)
async def test_database_is_stopped_and_started_while_jobs_flow(private_postgres: PrivatePostgres, driver: str) -> None:
    url = private_postgres.create_database()
    await asyncio.to_thread(migrate.upgrade, url, TABLE)
    async with world_on(url.replace("asyncpg", driver)) as world:
        store = await world.worker()
        events = world.record(StoreLost, StoreBack)
        flow = await Flow.start(store, 4000)
        for _ in range(2):
            await flow.until_more(200)
            await asyncio.to_thread(private_postgres.stop)
            await eventually(lambda: len(events.of(StoreLost)) > len(events.of(StoreBack)), 20, "the loss to be told")
            with pytest.raises(StoreUnavailableError, match="PostgreSQL at"):
                await store.count_by_state()
            await asyncio.to_thread(private_postgres.start)
            await events.wait_for(StoreBack, count=len(events.of(StoreLost)), timeout=30)
        await flow.finish()
        await _each_ran_once(world, store, flow)
        # Told once for each outage, not for each try.
        assert [type(event) for event in events.seen] == [StoreLost, StoreBack] * 2


@pytest.mark.parametrize("driver", DRIVERS)
async def test_connections_are_cut_while_jobs_flow(
    pg: World, tcp_proxy: Callable[[str], TcpProxy], driver: str
) -> None:
    """A commit whose answer is lost was perhaps made: what is tried again must not be refused, nor done twice."""
    proxy = tcp_proxy(pg.url)
    async with world_on(proxy.url(pg.url.replace("asyncpg", driver))) as world:
        store = await world.worker()
        flow = await Flow.start(store, 3000)
        await _cut_to_its_end(proxy, flow, after=100)
        await _each_ran_once(world, store, flow)


async def test_connections_are_cut_while_jobs_of_groups_flow(pg: World, tcp_proxy: Callable[[str], TcpProxy]) -> None:
    """Each group's jobs run in their order, each once, whichever of a claim's statements is lost."""
    proxy = tcp_proxy(pg.url)
    async with world_on(proxy.url(pg.url)) as world:
        store = await world.worker()
        flow = await GroupFlow.start(store, 1500)
        await _cut_to_its_end(proxy, flow, after=50)
        await _each_ran_once(world, store, flow)


async def test_frozen_connection_is_given_up(
    pg: World, tcp_proxy: Callable[[str], TcpProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PostgreSQL, "deadline", 1.0)
    proxy = tcp_proxy(pg.url)
    async with world_on(proxy.url(pg.url)) as world:
        store = await world.worker()
        events = world.record(StoreLost, StoreBack)
        flow = await Flow.start(store, 2000)
        await flow.until_more(100)
        proxy.freeze()
        await events.wait_for(StoreLost)
        proxy.cut()  # what is frozen stays so: new connections are not
        proxy.thaw()
        await flow.finish()
        await _each_ran_once(world, store, flow)
        assert events.of(StoreBack)


@pytest.mark.parametrize("driver", DRIVERS)
async def test_connections_that_died_in_the_pool_are_seen_by_nobody(
    private_postgres: PrivatePostgres, driver: str
) -> None:
    url = private_postgres.create_database().replace("asyncpg", driver)
    async with world_on(url) as world:
        store = await world.worker()
        events = world.record(StoreLost)
        for _ in range(3):
            await asyncio.gather(*(store.count_by_state() for _ in range(4)))
            await asyncio.to_thread(private_postgres.restart)
            await asyncio.gather(*(store.count_by_state() for _ in range(4)))
            await asyncio.to_thread(private_postgres.drop_connections)
            await queued(store)
        assert await store.count_by_state() == {JobState.QUEUED: 3}
        assert events.seen == []


async def test_commit_whose_answer_was_lost_is_neither_refused_nor_repeated(
    db: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = await db.worker(), await db.worker()
    known, lost, unknown = (await queued(store))[0], (await queued(store))[0], new_job()
    run = {"run_token": 1, "worker_id": "gone", "attempt": 1, "started_at": clock.wall()}
    await db.change(lost.id, state="running", **run)
    writes = _lose_answers(store, monkeypatch)

    requests = [request_of(known), request_of(lost), request_of(unknown, promised=False)]
    claims = await asyncio.gather(*map(store.claim, requests))
    assert [(claim.verdict, claim.attempt, claim.crashes) for claim in claims] == [
        (Verdict.GRANT, 1, 0),
        (Verdict.GRANT, 2, 1),
        (Verdict.GRANT, 1, 0),
    ]
    assert verdicts(await asyncio.gather(*map(other.claim, requests))) == [Verdict.HOLD] * 3

    tokens = [request.run_token for request in requests]
    outcomes: list[Outcome] = [Succeeded(1), Failed(Failure(None, "no")), Interrupted()]
    jobs = [known, lost, unknown]
    answers = await asyncio.gather(*(settled(store, *rest) for rest in zip(jobs, tokens, outcomes, strict=True)))
    assert answers == [True] * 3
    # Where there is a fast path, its answers are lost, too.
    assert writes == ["lost"] * (4 if store._db.dialect.has_writable_ctes else 2)
    assert not await settled(store, known, tokens[0], Succeeded(2))
    assert [len((await got(store, job)).attempts) for job in jobs] == [1, 2, 1]


def _lose_answers(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """From now on the answers of the fast path, and of each second write, are lost although they were committed."""
    write, try_autocommit, lost = store._db.write, store._db.try_autocommit, list[str]()
    turns = itertools.cycle([True, False])

    async def committed_and_lost(work: Any, **options: Any) -> Any:
        answer = await write(work, **options)
        if next(turns):
            lost.append("lost")
            raise StoreUnknownError("The connection was lost while it committed.")
        return answer

    async def committed_and_unknown(*arguments: Any) -> None:
        assert await try_autocommit(*arguments) is not None
        lost.append("lost")

    monkeypatch.setattr(store._db, "write", committed_and_lost)
    monkeypatch.setattr(store._db, "try_autocommit", committed_and_unknown)
    return lost


async def test_insert_that_was_lost_in_its_commit_says_so(pg: World, tcp_proxy: Callable[[str], TcpProxy]) -> None:
    """A deferred trigger holds the commit until the connection is cut."""
    proxy = tcp_proxy(pg.url)
    slow = (
        "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN NULL; END $$",
        f"CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON {TABLE} DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION hold()",
    )
    async with world_on(proxy.url(pg.url)) as world:
        store = await world.worker()
        for statement in slow:
            await pg.execute(sa.text(statement))
        try:
            sending = asyncio.ensure_future(store.insert([new_job()], publish_lease=None))
            sleeping = sa.text("SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
            pids = await eventually(lambda: pg.execute(sleeping), 20, "the commit to be under way")
            await asyncio.to_thread(proxy.cut)
            with pytest.raises(StoreUnknownError):
                await sending
            for row in pids:
                await pg.execute(sa.select(sa.func.pg_terminate_backend(row.pid)))
        finally:
            await pg.execute(sa.text("DROP FUNCTION hold CASCADE"))


async def test_sessions_protect_themselves(pg: World) -> None:
    store = await pg.worker()

    async def setting(name: str) -> str | None:
        query = sa.select(sa.func.current_setting(name, type_=sa.Text))
        return await store._db.read(lambda connection: connection.scalar(query))

    # What a process that is stopped within a transaction has locked is set free by the server.
    assert await setting("idle_in_transaction_session_timeout") == "15s"
    # The tests' server has it off; then a crash would forget claims.
    assert await setting("synchronous_commit") == "on"


async def test_claims_change_no_index(pg: World) -> None:
    """On PostgreSQL they are HOT updates (A58)."""
    store = await pg.worker()
    jobs = await queued(store, 500)
    await store.mark_published([(job.id, 1) for job in jobs])
    # Its backend tells its counts when it ends.
    await store.leave()
    await store.close()
    before = await _updates(pg)
    other = await pg.worker()
    await asyncio.gather(*(granted(other, job) for job in jobs))
    await other.close()

    async def counted() -> tuple[int, int] | None:
        total, hot = await _updates(pg)
        return (total - before[0], hot - before[1]) if total - before[0] >= 500 else None

    total, hot = await eventually(counted, 20, "the server to have counted the updates")
    assert total == 500
    assert hot > 250  # where the page has no room for one more version, it is none


async def _updates(world: World) -> tuple[int, int]:
    counts = sa.text("SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = :name")
    [row] = await world.execute(counts.bindparams(name=TABLE))
    return row.n_tup_upd, row.n_tup_hot_upd


class Flow:
    """Jobs that are claimed and settled, a hundred at a time, without a pause."""

    def __init__(self, store: SqlStore, jobs: list[NewJob]) -> None:
        self._store, self.jobs = store, jobs
        self._left = iter(jobs)
        self.settled = 0
        self._lanes = [asyncio.ensure_future(self._live(lane)) for lane in range(LANES)]

    @classmethod
    async def start(cls, store: SqlStore, count: int) -> Self:
        return cls(store, await queued(store, count))

    @property
    def done(self) -> bool:
        return self.settled == len(self.jobs)

    async def until_more(self, count: int) -> None:
        """Wait for ``count`` more, or the last."""
        goal = min(self.settled + count, len(self.jobs))
        await eventually(lambda: self.settled >= goal, 30, f"{goal} jobs to be settled")

    async def finish(self) -> None:
        await asyncio.wait_for(asyncio.gather(*self._lanes), 60)

    async def _live(self, _lane: int) -> None:
        for job in self._left:
            token = await granted(self._store, job)
            assert await settled(self._store, job, token, Succeeded())
            self.settled += 1


class GroupFlow(Flow):
    """The same with as many groups."""

    @classmethod
    async def start(cls, store: SqlStore, count: int) -> Self:
        jobs = [new_job(job_id, group=f"group {n % LANES}") for n, job_id in enumerate(job_ids(count))]
        await store.insert(jobs, publish_lease=timedelta(minutes=1))
        return cls(store, jobs)

    async def _live(self, lane: int) -> None:
        for number, job in enumerate(self.jobs[lane::LANES]):
            # The first one got its place when it was sent, the others by a release each.
            assert (await runs(self._store, job, dispatch=1 if number == 0 else 2)).written
            self.settled += 1


async def _cut_to_its_end(proxy: TcpProxy, flow: Flow, *, after: int) -> None:
    """Cut the connections each time that so many more are through."""
    cuts = 0
    while not flow.done:
        await flow.until_more(after)
        await asyncio.to_thread(proxy.cut)
        cuts += 1
    await flow.finish()
    assert cuts > 5


async def _each_ran_once(world: World, store: SqlStore, flow: Flow) -> None:
    assert await store.count_by_state() == {JobState.SUCCEEDED: len(flow.jobs)}
    attempts, jobs = world.tables.attempts, world.tables.jobs
    outcomes = sa.select(attempts.c.outcome, sa.func.count()).group_by(attempts.c.outcome)
    assert [tuple(row) for row in await world.execute(outcomes)] == [("succeeded", len(flow.jobs))]
    numbers = await world.execute(sa.select(jobs.c.attempt).distinct())
    assert [row.attempt for row in numbers] == [1]
    await eventually(lambda: store.connections_in_use == 0, 10, "all connections to be given back")
