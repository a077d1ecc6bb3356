"""Fixtures of the suites.

Of the store's
  db: World    a test runs three times: on SQLite, on PostgreSQL by asyncpg, on PostgreSQL by psycopg
  led: World   the same; at the end each group's places are held by those whose turn it is, and are counted
  each_way: World    the same, and once more with settlements that are no statements of their own
  pg: World    on PostgreSQL by asyncpg
Of the transport's, by what the test needs
  world: World          runs on every adapter
  unbounded: World      on those whose queues take everything, whether it is consumed or not
  broker: RabbitWorld   on those with a connection, and with queues that several processes share
  classic: World        on those that do what quorum queues (seen with RabbitMQ 3.10) do not
  with_rows: World      on the one that has rows behind it, and takes only what makes sense now
  queue: str            a name that nobody else uses
"""

from __future__ import annotations

import secrets
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from jq_actors.store.claims.settles import SettledBatch, Settles
from jq_actors.store.inserts.grouped_inserts import GroupedInserts
from jq_actors.store.schema import migrate
from tests.conformance.store.places import wrong_in
from tests.conformance.store.stores import KINDS, TABLE, World, emptied, world_on
from tests.support.postgres import GivenPostgres, PrivatePostgres

from .transport import transports


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "template.db"
    migrate.upgrade(f"sqlite+aiosqlite:///{path}", TABLE)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


@pytest.fixture(scope="session")
def migrated_postgres(postgres: PrivatePostgres | GivenPostgres) -> Iterator[str]:
    url = postgres.create_database()
    migrate.upgrade(url, TABLE)
    yield url
    postgres.drop_database(url)


def _migrated(request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> str:
    """A database with our tables, all empty."""
    if kind == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "jobs.db")
        return f"sqlite+aiosqlite:///{tmp_path}/jobs.db"
    return emptied(request.getfixturevalue("migrated_postgres")).replace("asyncpg", kind)


@pytest.fixture(params=KINDS)
def migrated_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return _migrated(request, request.param, tmp_path)


@pytest.fixture
async def db(migrated_url: str) -> AsyncIterator[World]:
    async with world_on(migrated_url) as world:
        yield world


@pytest.fixture
async def led(db: World) -> AsyncIterator[World]:
    yield db
    assert await wrong_in(db) == []


@pytest.fixture(params=[*KINDS, "asyncpg, transactions"])
def url_of_each_way(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    kind, _, in_transactions = request.param.partition(", ")
    if in_transactions:
        monkeypatch.setattr(Settles, "try_fast_path", _nothing_settled)
        monkeypatch.setattr(GroupedInserts, "try_write", _nothing)
    return _migrated(request, kind, tmp_path)


@pytest.fixture
async def each_way(url_of_each_way: str) -> AsyncIterator[World]:
    async with world_on(url_of_each_way) as world:
        yield world
        assert await wrong_in(world) == []


async def _nothing_settled(*_arguments: Any) -> SettledBatch:
    """Leave all to transactions."""
    return SettledBatch()


async def _nothing(*_arguments: Any) -> None:
    """Leave all to what comes next."""


@pytest.fixture
def postgres_url(migrated_postgres: str) -> str:
    return emptied(migrated_postgres)


@pytest.fixture
async def pg(postgres_url: str) -> AsyncIterator[World]:
    async with world_on(postgres_url) as world:
        yield world


@pytest.fixture(scope="session")
def namespaces() -> dict[bool, str]:
    # One for each type of queue, and not for each test: a listing of queues costs a second.
    return {quorum: f"t{secrets.token_hex(5)}" for quorum in (False, True)}


@pytest.fixture(params=transports.ALL)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[transports.World]:
    async with transports.world_of(request) as made:
        yield made


@pytest.fixture(params=transports.UNBOUNDED)
async def unbounded(request: pytest.FixtureRequest) -> AsyncIterator[transports.World]:
    async with transports.world_of(request) as made:
        yield made


@pytest.fixture(params=transports.BROKERS)
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[transports.RabbitWorld]:
    async with transports.world_of(request) as made:
        assert isinstance(made, transports.RabbitWorld)
        yield made


@pytest.fixture(params=transports.UNBOUNDED[:2])
async def classic(request: pytest.FixtureRequest) -> AsyncIterator[transports.World]:
    async with transports.world_of(request) as made:
        yield made


@pytest.fixture(params=transports.ALL[:1])
async def with_rows(request: pytest.FixtureRequest) -> AsyncIterator[transports.World]:
    async with transports.world_of(request) as made:
        yield made


@pytest.fixture
def queue() -> str:
    return f"q{secrets.token_hex(4)}"
