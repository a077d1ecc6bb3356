"""The two dialects: PostgreSQL and SQLite."""

from __future__ import annotations

import asyncio
import sqlite3
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from .dialect import BATCH, WRITES, ColumnTypes, Dialect, Fault


def dialect_of(url: str) -> tuple[sa.URL, Dialect]:
    """Return the parsed ``url`` and its dialect.

    Raises:
      ValueError: the URL is not of a supported database and driver. The message says which ones are supported.
    """
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError as error:
        raise ValueError(f"The database URL cannot be read; expected for example {_EXAMPLES}.") from error
    match parsed.drivername:
        case "postgresql+asyncpg" | "postgresql+psycopg":
            return parsed, PostgreSQL()
        case "sqlite+aiosqlite" if parsed.database and ":memory:" not in parsed.database:
            return parsed, SQLite()
        case "sqlite+aiosqlite":
            raise ValueError(
                "SQLite in memory cannot be shared by connections; give a file: sqlite+aiosqlite:///jobs.db."
            )
        case other:
            raise ValueError(f"The database driver {other!r} is not supported; use {_EXAMPLES}.")


_EXAMPLES = (
    "postgresql+asyncpg://user@host/database, postgresql+psycopg://user@host/database or sqlite+aiosqlite:///file"
)


class PostgreSQL(Dialect):
    """PostgreSQL, through asyncpg or psycopg."""

    name = "postgresql"
    deadline = 20.0
    server_time = sa.func.clock_timestamp(type_=sa.TIMESTAMP(timezone=True))
    has_writable_ctes = True

    _SESSION = (
        # The rows that the store reads are in memory. With the default, the planner would scan a small table instead
        # of looking up rows by id.
        "SET random_page_cost = 1.1",
        # A server that can lose commits would lose claims, and a job would run twice. Stricter settings are kept.
        "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
        # For any other zone psycopg reads a file, on the event loop.
        "SET TIME ZONE 'UTC'",
        # A process that freezes during a transaction (SIGSTOP, a frozen host) must not keep rows locked.
        "SET idle_in_transaction_session_timeout = '15s'",
        # If an operator's transaction keeps a row locked, a try must not hold up the other rows for a whole deadline.
        "SET lock_timeout = '5s'",
    )
    # A plan made for an empty table would scan a full one until the next ANALYZE. Planning each time costs about
    # 0.2 ms per statement.
    _PLANNED_EACH_TIME = ("SET plan_cache_mode = force_custom_plan",)
    # Planning the few statements that commit by themselves would take longer than running them. They find rows by
    # index, whatever the size of the table, so with sequential scans disabled even a plan for an empty table is right.
    _PLANNED_ONCE = ("SET plan_cache_mode = force_generic_plan", "SET enable_seqscan = off")

    def engine_options(self, url: sa.URL, pool_size: int) -> dict[str, Any]:
        """Set the size of the pool, the application name that the server shows, and a deadline for connecting."""
        if url.drivername.endswith("asyncpg"):
            connect = {"timeout": 10, "server_settings": {"application_name": "jq_actors"}}
        else:
            connect = {"connect_timeout": 10, "application_name": "jq_actors"}
        return {"pool_size": pool_size, "max_overflow": 2, "connect_args": connect}

    def configure(self, engine: AsyncEngine, *, autocommit: bool = False) -> None:
        """Prepare each new session."""

        @event.listens_for(engine.sync_engine, "connect")
        def set_up(connection: Any, _record: Any) -> None:
            cursor = connection.cursor()
            for statement in self._SESSION + (self._PLANNED_ONCE if autocommit else self._PLANNED_EACH_TIME):
                cursor.execute(statement)
            cursor.close()
            connection.commit()

    def describe(self, url: sa.URL) -> str:
        """Name the host, port and database."""
        return f"PostgreSQL at {url.host or 'localhost'}:{url.port or 5432}/{url.database or ''}"

    def rows(self, columns: ColumnTypes, parameter: sa.BindParameter[str] = BATCH) -> sa.FromClause:
        """Unpack the parameter with ``json_to_recordset``."""
        typed: list[sa.ColumnClause[Any]] = [sa.column(name, kind) for name, kind in columns.items()]
        records = sa.func.json_to_recordset(sa.cast(parameter, postgresql.JSON))
        return records.table_valued(*typed, name="b").render_derived(with_types=True)

    def insert(self, table: sa.Table) -> postgresql.Insert:
        """Return PostgreSQL's INSERT."""
        return postgresql.insert(table)

    def has_tags(self, column: sa.ColumnElement[Any], tags: Sequence[str]) -> sa.ColumnElement[bool]:
        """Compare with ``@>``."""
        return column.op("@>", is_comparison=True)(sa.cast(sa.literal(list(tags), postgresql.JSONB), postgresql.JSONB))

    def each_with(
        self, outer: sa.FromClause, keys: sa.Select[Any], table: sa.Table, key: sa.ColumnElement[Any]
    ) -> sa.FromClause:
        """Use a lateral join."""
        found = keys.correlate(outer).lateral("keys")
        return outer.join(found, sa.true()).join(table, key == found.c[0])

    async def next_numbers(self, connection: AsyncConnection, jobs: sa.Table, count: int) -> list[int]:
        """Draw the numbers from the sequence of ``seq``."""
        sequence = sa.cast(sa.func.pg_get_serial_sequence(jobs.name, "seq"), postgresql.REGCLASS)
        number = sa.func.nextval(sequence, type_=sa.BigInteger)
        drawn = sa.select(number).select_from(sa.func.generate_series(1, count).alias("drawn"))
        return sorted((await connection.execute(drawn)).scalars())

    async def lock_for_migration(self, connection: AsyncConnection, jobs_table: str) -> None:
        """Take an advisory lock."""
        # Another process may take arbitrarily long to migrate.
        await connection.execute(sa.text("SET LOCAL lock_timeout = 0"))
        key = zlib.crc32(f"jq_actors:{jobs_table}".encode())
        await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))

    def fault_of(self, error: sa.exc.StatementError) -> Fault:
        """Judge by the SQLSTATE."""
        if not isinstance(error, sa.exc.DBAPIError):
            return Fault.REFUSED
        match getattr(error.orig, "sqlstate", None):
            case "40001" | "40P01":
                return Fault.CONFLICT
            case str(state) if state[:2] in ("22", "23", "54"):
                return Fault.REFUSED  # bad data, a violated constraint, or a program limit
            case None if isinstance(getattr(error.orig, "__cause__", None), ValueError):
                return Fault.REFUSED  # asyncpg could not encode a parameter
            case _:
                # This includes a missing table or privilege, a full disk, and a row that stays locked. Until an
                # operator repairs that, no outcome is thrown away, unless others can be written (`SetAside`).
                return Fault.AWAY


class SQLite(Dialect):
    """SQLite, through aiosqlite: one file shared by many processes."""

    name = "sqlite"
    deadline = 60.0
    server_time = None
    has_writable_ctes = False

    def __init__(self) -> None:
        self._queue, self._lock = asyncio.Lock(), asyncio.Lock()

    @asynccontextmanager
    async def write_lock(self, *, urgent: bool) -> AsyncIterator[None]:
        """Lock out the other tasks of this process. An urgent task waits for at most two others."""
        # SQLite would wait for its own write lock in sleeps of up to 100 ms.
        if urgent:
            await self._lock.acquire()
        else:
            # Only one task of this queue at a time waits for the lock itself.
            async with self._queue:
                await self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()

    def engine_options(self, url: sa.URL, pool_size: int) -> dict[str, Any]:
        """Set the size of the pool."""
        return {"pool_size": pool_size, "max_overflow": 2}

    def configure(self, engine: AsyncEngine, *, autocommit: bool = False) -> None:
        """Prepare each new connection, and begin write transactions as IMMEDIATE."""

        @event.listens_for(engine.sync_engine, "connect")
        def set_up(connection: Any, _record: Any) -> None:
            connection.isolation_level = None  # the driver's own BEGIN would be deferred
            cursor = connection.cursor()
            cursor.execute("PRAGMA busy_timeout = 30000")
            # Whatever the timeout, this fails at once while another process does the same to a new file. The mode
            # belongs to the file, so it then applies to this process, too.
            with suppress(sqlite3.OperationalError):
                cursor.execute("PRAGMA journal_mode = WAL")
            cursor.close()

        @event.listens_for(engine.sync_engine, "begin")
        def begin(connection: sa.Connection) -> None:
            # A deferred transaction that starts to write fails at once, without waiting, if another process has
            # written since the transaction began (A61).
            writes = connection.get_execution_options().get(WRITES)
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    def describe(self, url: sa.URL) -> str:
        """Name the path of the file."""
        return f"SQLite file {url.database}"

    def rows(self, columns: ColumnTypes, parameter: sa.BindParameter[str] = BATCH) -> sa.FromClause:
        """Unpack the parameter with ``json_each``."""
        each = sa.func.json_each(parameter).table_valued("value", name="each")
        fields = [
            sa.type_coerce(sa.func.json_extract(each.c.value, sa.literal_column(f"'$.{name}'")), kind).label(name)
            for name, kind in columns.items()
        ]
        return sa.select(*fields).select_from(each).subquery("b")

    def insert(self, table: sa.Table) -> sqlite.Insert:
        """Return SQLite's INSERT."""
        return sqlite.insert(table)

    def has_tags(self, column: sa.ColumnElement[Any], tags: Sequence[str]) -> sa.ColumnElement[bool]:
        """Search with ``json_each``, tag by tag."""
        each = sa.func.json_each(column).table_valued("value")
        return sa.and_(*(sa.exists(sa.select(each.c.value).where(each.c.value == tag)) for tag in tags))

    def each_with(
        self, outer: sa.FromClause, keys: sa.Select[Any], table: sa.Table, key: sa.ColumnElement[Any]
    ) -> sa.FromClause:
        """Use a correlated IN."""
        return outer.join(table, key.in_(keys.correlate(outer)))

    async def next_numbers(self, connection: AsyncConnection, jobs: sa.Table, count: int) -> list[int]:
        """Advance the counter of AUTOINCREMENT."""
        # AUTOINCREMENT keeps its counters in this table, which has a row for ``jobs`` once ``jobs`` has had a row.
        given = sa.table("sqlite_sequence", sa.column("name", sa.Text), sa.column("seq", sa.Integer))
        draw = sa.update(given).where(given.c.name == jobs.name).values(seq=given.c.seq + count)
        last: int = (await connection.execute(draw.returning(given.c.seq))).scalar_one()
        return list(range(last - count + 1, last + 1))

    async def lock_for_migration(self, connection: AsyncConnection, jobs_table: str) -> None:
        """Do nothing: the transaction began as IMMEDIATE, so it is the only writer."""

    def fault_of(self, error: sa.exc.StatementError) -> Fault:
        """Judge by the class of the driver's error."""
        # Every problem with the file, the disk or the locks is a sqlite3.OperationalError.
        refused = not isinstance(error, sa.exc.DBAPIError) or isinstance(
            error, sa.exc.IntegrityError | sa.exc.DataError | sa.exc.ProgrammingError | sa.exc.InterfaceError
        )
        return Fault.REFUSED if refused else Fault.AWAY
