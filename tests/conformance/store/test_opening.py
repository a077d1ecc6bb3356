"""Opening a store: URLs, tables made once, versions, a database that is not there yet."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.errors import NotMigratedError, StoreUnavailableError
from jq_actors.events import Events, StoreBack, StoreLost
from jq_actors.model.claim_rules import Verdict
from jq_actors.model.job import JobState
from jq_actors.store.records import Leases
from jq_actors.store.schema import migrate
from jq_actors.store.sql import SqlStore
from jq_actors.store.tables import NO_PLACE, REVISION, tables_for
from tests.support.postgres import PrivatePostgres
from tests.support.waiting import eventually

from .migrating import upgrade_to
from .stores import LEASE, TABLE, World, another_me, clock, new_job, queued, request_of, world_on
from .turns import runs

PROJECT = Path(__file__).parents[3]


def sql_store(url: str, jobs_table: str = TABLE) -> SqlStore:
    return SqlStore(url, jobs_table=jobs_table, leases=Leases(), clock=clock, events=Events())


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql+aiomysql://me@host/db", "'mysql\\+aiomysql' is not supported"),
        ("mariadb+asyncmy://me:secret@host/db", "'mariadb\\+asyncmy' is not supported"),
        ("postgresql://me@host/db", "'postgresql' is not supported; use postgresql\\+asyncpg"),
        ("sqlite:///jobs.db", "'sqlite' is not supported"),
        ("sqlite+aiosqlite://", "give a file"),
        ("sqlite+aiosqlite:///:memory:", "give a file"),
        ("sqlite+aiosqlite:///file::memory:?cache=shared&uri=true", "give a file"),
        ("no url: s3cret", "cannot be read"),
    ],
)
def test_url_that_cannot_be_used_is_refused(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        sql_store(url)
    assert "s3cret" not in str(raised.value)
    assert ":secret" not in str(raised.value)


@pytest.mark.parametrize("name", ["", "Jobs", "1jobs", "jobs;drop", "a.b", "j" * 41])
def test_table_name_that_cannot_be_used_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="lower-case identifier"):
        sql_store("sqlite+aiosqlite:///jobs.db", name)


# -- versions


def test_newest_script_is_the_revision_of_the_tables() -> None:
    scripts = ScriptDirectory(str(Path(migrate.__file__).parent / "migrations"))
    assert scripts.get_heads() == [REVISION]
    assert migrate.head() == REVISION


async def test_migrated_tables_are_those_that_the_store_knows(db: World) -> None:
    def differences(connection: sa.Connection) -> list[object]:
        ours = tables_for(TABLE)
        context = MigrationContext.configure(
            connection,
            opts={
                "include_name": lambda name, kind, _: kind != "table" or name in ours.metadata.tables,
                "compare_type": True,
            },
        )
        with warnings.catch_warnings():
            # SQLAlchemy cannot read back what an index of SQLite computes; Alembic says so once more.
            warnings.filterwarnings("ignore", ".*expression-based index", UserWarning)
            warnings.filterwarnings("ignore", ".*expression-based index", sa.exc.SAWarning)
            found: list[object] = compare_metadata(context, ours.metadata)
        # Conditions of indexes, what SQLite's compute, and storage are not compared by Alembic.
        there = _indexes_of(connection)
        for index in (index for table in ours.metadata.sorted_tables for index in table.indexes):
            known = str(sa.schema.CreateIndex(index).compile(dialect=connection.dialect))
            if _plain(known) != _plain(there[str(index.name)]):
                found.append((known, there[str(index.name)]))
        return found

    store = db.store()
    await store.open()
    assert await store._db.read(lambda connection: connection.run_sync(differences)) == []


def _indexes_of(connection: sa.Connection) -> dict[str, str]:
    """The statement that makes each index."""
    if connection.dialect.name == "postgresql":
        query = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = current_schema()"
    else:
        query = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    return {row[0]: row[1] for row in connection.execute(sa.text(query))}


def _plain(statement: str) -> str:
    words = statement.lower().replace("public.", "").replace(f" {TABLE}.", " ").replace("using btree ", "")
    return "".join(words.replace(f"({TABLE}.", "").translate(str.maketrans("", "", '()"')).split())


@pytest.fixture
def empty_url(store_url: str) -> str:
    """A database without our tables: on SQLite and PostgreSQL."""
    return store_url


async def test_tables_are_made_by_open(empty_url: str) -> None:
    async with world_on(empty_url) as world:
        store = await world.worker()
        await queued(store)
        assert await store.count_by_state() == {JobState.QUEUED: 1}


async def test_without_auto_migrate_tables_have_to_be_there(empty_url: str) -> None:
    async with world_on(empty_url) as world:
        store = world.store(auto_migrate=False)
        with pytest.raises(NotMigratedError, match=rf"at revision none, this release.*{REVISION}.*db upgrade"):
            await store.open()
        report = await store.check()
        assert (report.revision, report.head, len(report.problems)) == (None, REVISION, 1)
        with pytest.raises(StoreUnavailableError):
            await store.count_by_state()

        await asyncio.to_thread(migrate.upgrade, empty_url, TABLE)
        await asyncio.to_thread(migrate.upgrade, empty_url, TABLE)

        assert await asyncio.to_thread(migrate.current, empty_url, TABLE) == REVISION
        await store.open()
        report = await store.check()
        assert (report.revision, report.problems) == (REVISION, ())
        assert await store.count_by_state() == {}


async def test_rows_of_the_first_revision_are_kept_and_have_their_places(empty_url: str) -> None:
    await asyncio.to_thread(upgrade_to, empty_url, "0001")
    async with world_on(empty_url) as world:
        jobs = world.tables.jobs
        row = {
            "actor": "a",
            "queue": "mail",
            "group_key": "g",
            "priority": 0,
            "dispatch": 1,
            "redispatches": 0,
            "tags": [],
        }
        row |= {"attempt": 0, "crashes": 0, "due_at": clock.wall(), "enqueued_at": clock.wall()}
        old = [new_job(group="g") for _ in range(3)]
        for job, state in zip(old, ("scheduled", "queued", "queued"), strict=True):
            await world.execute(sa.insert(jobs).values(id=job.id, state=state, wake_at=None, **row))
            await world.execute(sa.insert(world.tables.payloads).values(job_id=job.id, body="{}"))

        store = await world.worker()

        assert (await store.check()).revision == REVISION
        assert [(await world.the_row(job.id)).order_key for job in old] == [NO_PLACE, None, None]
        assert await store.mend_groups(store.now(), 100) == 1
        assert [(await world.the_row(job.id)).state for job in old] == ["scheduled", "queued", "waiting"]
        for job in old[1:]:
            await runs(store, job)
        assert [(await world.the_row(job.id)).state for job in old] == ["scheduled", "succeeded", "succeeded"]


@pytest.mark.parametrize("auto_migrate", [True, False])
async def test_tables_of_a_newer_release_are_left_alone(db: World, auto_migrate: bool) -> None:
    version = sa.table(f"{TABLE}_version", sa.column("version_num"))
    await db.execute(sa.update(version).values(version_num="9999"))
    try:
        store = db.store(auto_migrate=auto_migrate)
        with pytest.raises(NotMigratedError, match=r"9999.*newer release"):
            await store.open()
        assert "9999" in (await store.check()).problems[0]
    finally:
        await db.execute(sa.update(version).values(version_num=REVISION))


async def test_installations_in_one_database_do_not_know_each_other(empty_url: str) -> None:
    async with world_on(empty_url) as world:
        await world.execute(sa.text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"))
        await world.execute(sa.text("INSERT INTO alembic_version VALUES ('theirs')"))
        stores = [world.store(jobs_table=name) for name in ("jobs", "j" * 40)]
        for store in stores:
            await store.open()
        await queued(stores[0], 2)
        assert await stores[0].count_by_state() == {JobState.QUEUED: 2}
        assert await stores[1].count_by_state() == {}
        theirs = await world.execute(sa.text("SELECT version_num FROM alembic_version"))
        assert [row.version_num for row in theirs] == ["theirs"]


def test_processes_that_start_on_an_empty_database_make_the_tables_once(empty_url: str) -> None:
    processes = [_start(empty_url, 5) for _ in range(6)]
    outputs = [process.communicate("\n", timeout=100)[0] for process in processes]
    assert outputs == ["ready\n"] * 6
    assert [process.returncode for process in processes] == [0] * 6


def test_processes_that_write_one_file_are_never_told_that_it_is_locked(sqlite_url: str) -> None:
    # 250 jobs are 1,000 writes (A61).
    processes = [_start(sqlite_url, 250) for _ in range(4)]
    outputs = [process.communicate("\n", timeout=110)[0] for process in processes]
    assert outputs == ["ready\n"] * 4
    assert [process.returncode for process in processes] == [0] * 4


async def test_transactions_that_read_before_they_write_are_never_told_that_the_file_is_locked(
    sqlite_url: str,
) -> None:
    async with world_on(sqlite_url) as world:
        stores = [await world.worker() for _ in range(3)]
        workers = world.tables.workers

        async def count_up(connection: AsyncConnection) -> None:
            pid = await connection.scalar(sa.select(sa.func.max(workers.c.pid)))
            await connection.execute(sa.update(workers).values(pid=pid + 1))

        [before] = await world.execute(sa.select(sa.func.max(workers.c.pid).label("pid")))
        await asyncio.gather(*(store._db.write(count_up) for _ in range(50) for store in stores))
        [after] = await world.execute(sa.select(sa.func.max(workers.c.pid).label("pid")))
        assert after.pid == before.pid + 150


def _start(url: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.conformance.store.store_process", url, TABLE, str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
    )


# -- a database that is away


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_open_waits_in_the_background_for_the_database(private_postgres: PrivatePostgres, driver: str) -> None:
    url = private_postgres.create_database().replace("asyncpg", driver)
    private_postgres.stop()
    async with world_on(url) as world:
        events = world.record(StoreLost, StoreBack)
        store = world.store()
        await store.open()
        with pytest.raises(StoreUnavailableError):
            await store.register(another_me(), ["mail"], LEASE)
        job = new_job()
        with pytest.raises(StoreUnavailableError, match="not been reached"):
            await store.insert([job], publish_lease=None)
        claim = asyncio.ensure_future(store.claim(request_of(job, promised=False)))
        [problem] = (await store.check()).problems
        assert str(private_postgres.port) in problem

        await asyncio.to_thread(private_postgres.start)

        assert (await asyncio.wait_for(claim, 30)).verdict is Verdict.GRANT
        assert await store.count_by_state() == {JobState.RUNNING: 1}
        assert [type(event) for event in events.seen] == [StoreLost, StoreBack]


async def test_secrets_stay_out_of_messages(tmp_path: Path) -> None:
    for driver in ("asyncpg", "psycopg"):
        async with world_on(f"postgresql+{driver}://me:s3cret@127.0.0.1:1/db") as world:
            events = world.record(StoreLost)
            store = world.store()
            await store.open()
            report = await store.check()
            told = f"{report} {events.seen}"
            assert "PostgreSQL at 127.0.0.1:1/db" in told
            assert "s3cret" not in told


async def test_operator_who_upgrades_during_an_outage_ends_it(private_postgres: PrivatePostgres) -> None:
    url = private_postgres.create_database()
    private_postgres.stop()
    async with world_on(url) as world:
        events = world.record(StoreLost, StoreBack)
        store = world.store(auto_migrate=False)
        await store.open()
        await asyncio.to_thread(private_postgres.start)
        await asyncio.to_thread(migrate.upgrade, url, TABLE)

        async def works() -> bool:
            try:
                return await store.count_by_state() == {}
            except StoreUnavailableError:
                return False

        await eventually(works, 20, "the store to work")
        assert [type(event) for event in events.seen] == [StoreLost, StoreBack]


async def test_file_that_cannot_be_opened_is_an_outage(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    async with world_on(f"sqlite+aiosqlite:///{folder}/jobs.db") as world:
        store = world.store()
        await store.open()
        claim = asyncio.ensure_future(store.claim(request_of(new_job(), promised=False)))
        with pytest.raises(StoreUnavailableError):
            await store.register(another_me(), ["mail"], LEASE)
        folder.mkdir()
        assert (await asyncio.wait_for(claim, 30)).verdict is Verdict.GRANT
