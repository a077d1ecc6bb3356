"""Migrations of the tables, programmatic: they ship in the package, and need no ini file.

`head`, `current` and `upgrade` are for threads without a loop: they block, and Alembic reads its scripts.
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

from .database import Database
from .tables import REVISION

SCRIPTS = Path(__file__).parent / "migrations"

T = TypeVar("T")


def head() -> str:
    """The revision that this release wants."""
    return REVISION


def current(url: str, jobs_table: str) -> str | None:
    """The revision that the database has; ``None``: no tables.

    Raises:
      ValueError: a URL that is not of a known kind.
      StoreUnavailableError: the database cannot be reached.
    """

    async def look(database: Database) -> str | None:
        return await database.read(lambda c: c.run_sync(revision_in, jobs_table), unready=True)

    return asyncio.run(_with_database(url, look))


def upgrade(url: str, jobs_table: str) -> None:
    """Bring the tables to `head`. Several processes at once are safe: the first one does it. Raises as `current` does.

    Raises:
      NotMigratedError: the tables are newer than this release.
    """

    async def work(database: Database) -> None:
        async def migrate(connection: AsyncConnection) -> None:
            await database.dialect.lock_for_migration(connection, jobs_table)
            await connection.run_sync(_run_scripts, jobs_table)

        await database.write(migrate, unready=True)

    asyncio.run(_with_database(url, work))


def revision_in(connection: sa.Connection, jobs_table: str) -> str | None:
    """The revision of the tables, by an open connection."""
    version_table = f"{jobs_table}_version"
    if not sa.inspect(connection).has_table(version_table):
        return None
    column: sa.ColumnClause[str] = sa.column("version_num", sa.Text)
    return connection.scalar(sa.select(column).select_from(sa.table(version_table)))


def not_migrated(found: str | None, jobs_table: str) -> NotMigratedError:
    """The error for tables that are at ``found``."""
    return NotMigratedError(
        f"The tables {jobs_table} are at revision {found or 'none'}, this release of jq_actors wants {REVISION}; "
        "`jq-actors db upgrade` makes them so, unless they belong to a newer release."
    )


async def _with_database(url: str, work: Callable[[Database], Awaitable[T]]) -> T:
    database = Database(url, pool_size=1, clock=SystemClock(), events=Events())
    try:
        return await work(database)
    finally:
        await database.close(timeout=0)


def _run_scripts(connection: sa.Connection, jobs_table: str) -> None:
    # Here, for Alembic takes a while to import and is needed seldom.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes.update(connection=connection, jobs_table=jobs_table)
    found = revision_in(connection, jobs_table)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise not_migrated(found, jobs_table)
    command.upgrade(config, REVISION)
