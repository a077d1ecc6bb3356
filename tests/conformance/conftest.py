"""Fixtures of the store suite.

db: World    a test runs three times: on SQLite, on PostgreSQL by asyncpg, on PostgreSQL by psycopg
pg: World    on PostgreSQL by asyncpg
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from jq_actors.store import migrate
from tests.support.postgres import GivenPostgres, PrivatePostgres

from .stores import KINDS, TABLE, World, emptied, world_on


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


@pytest.fixture(params=KINDS)
def migrated_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with our tables, all empty."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "jobs.db")
        return f"sqlite+aiosqlite:///{tmp_path}/jobs.db"
    return emptied(request.getfixturevalue("migrated_postgres")).replace("asyncpg", request.param)


@pytest.fixture
async def db(migrated_url: str) -> AsyncIterator[World]:
    async with world_on(migrated_url) as world:
        yield world


@pytest.fixture
def postgres_url(migrated_postgres: str) -> str:
    return emptied(migrated_postgres)


@pytest.fixture
async def pg(postgres_url: str) -> AsyncIterator[World]:
    async with world_on(postgres_url) as world:
        yield world
