"""Migrations of the tables by Alembic, without an ini file: the scripts are part of the package.

`current` and `upgrade` block: they are for threads without a loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.clock import SystemClock
from jq_actors.errors import NotMigratedError
from jq_actors.events import Events
from jq_actors.store.database.database import Database
from jq_actors.store.tables import REVISION

T = TypeVar("T")


def head() -> str:
    """The revision that this release needs."""
    return REVISION


def current(url: str, jobs_table: str) -> str | None:
    """The revision of the database; ``None``: it has no tables.

    Raises:
      ValueError: the URL is not of a supported kind.
      StoreUnavailableError: the database cannot be reached.
    """

    async def look(database: Database) -> str | None:
        return await database.read(lambda c: c.run_sync(revision_in, jobs_table), unready=True)

    return asyncio.run(_with_database(url, look))


def upgrade(url: str, jobs_table: str) -> None:
    """Bring the tables to `head`. Several processes may do so at once: the first one migrates.

    Raises:
      NotMigratedError: the tables are newer than this release.
      ValueError, StoreUnavailableError: as `current` does.
    """
    scripts = _Scripts()  # it reads files, so before there is a loop

    async def work(database: Database) -> None:
        async def migrate(connection: AsyncConnection) -> None:
            await database.dialect.lock_for_migration(connection, jobs_table)
            await connection.run_sync(scripts.upgrade, jobs_table)

        await database.write(migrate, unready=True)

    asyncio.run(_with_database(url, work))


def revision_in(connection: sa.Connection, jobs_table: str) -> str | None:
    """The revision of the tables that ``connection`` sees."""
    version_table = _version_table(jobs_table)
    if not sa.inspect(connection).has_table(version_table):
        return None
    column: sa.ColumnClause[str] = sa.column("version_num", sa.Text)
    return connection.scalar(sa.select(column).select_from(sa.table(version_table)))


def not_migrated(found: str | None, jobs_table: str) -> NotMigratedError:
    """The error for tables at the revision ``found``."""
    return NotMigratedError(
        f"The tables {jobs_table} are at revision {found or 'none'}, this release of jq_actors wants {REVISION};"
        " `jq-actors db upgrade` makes them so, unless they belong to a newer release."
    )


async def _with_database(url: str, work: Callable[[Database], Awaitable[T]]) -> T:
    database = Database(url, pool_size=1, clock=SystemClock(), events=Events())
    try:
        return await work(database)
    finally:
        await database.close(timeout=0)


class _Scripts:
    def __init__(self) -> None:
        # Imported here, because Alembic takes a while to import and is rarely needed.
        from alembic.runtime.environment import EnvironmentContext
        from alembic.script import ScriptDirectory

        self._context = EnvironmentContext
        self._directory = ScriptDirectory(str(Path(__file__).parent / "migrations"))
        self._known = {script.revision for script in self._directory.walk_revisions()}

    def upgrade(self, connection: sa.Connection, jobs_table: str) -> None:
        from alembic.config import Config

        found = revision_in(connection, jobs_table)
        if found is not None and found not in self._known:
            raise not_migrated(found, jobs_table)
        directory = self._directory
        with self._context(Config(), directory, fn=lambda at, _: directory._upgrade_revs(REVISION, at)) as context:
            context.configure(
                connection=connection,
                # The owner of the database may have a version table of Alembic there already.
                version_table=_version_table(jobs_table),
                jobs_table=jobs_table,  # for the scripts: op.get_context().opts
            )
            with context.begin_transaction():
                context.run_migrations()


def _version_table(jobs_table: str) -> str:
    return f"{jobs_table}_version"
