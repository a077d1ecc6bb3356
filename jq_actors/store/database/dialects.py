"""PostgreSQL and SQLite."""

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
    """The parsed ``url`` and its dialect.

    Raises:
      ValueError: not a URL of a supported database and driver; the message says which are.
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
    """PostgreSQL, by asyncpg or psycopg."""

    name = "postgresql"
    deadline = 20.0
    server_time = sa.func.clock_timestamp(type_=sa.TIMESTAMP(timezone=True))
    has_writable_ctes = True

    _SESSION = (
        # What the store reads is in memory. By default the planner would read a whole small table rather than some of
        # its rows by id.
        "SET random_page_cost = 1.1",
        # A server that may forget commits would forget claims, and a job would run twice. Stronger settings stay.
        "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
        # For any other zone psycopg reads a file, on the event loop.
        "SET TIME ZONE 'UTC'",
        # A process that stops within a transaction (SIGSTOP, a frozen host) must not keep rows locked.
        "SET idle_in_transaction_session_timeout = '15s'",
        # While an operator's transaction keeps a row locked, each try must not cost the other rows a whole deadline.
        "SET lock_timeout = '5s'",
    )
    # A plan made for an empty table would scan a full one until the next ANALYZE; planning each time costs a
    # statement some 0.2 ms.
    _PLANNED_EACH_TIME = ("SET plan_cache_mode = force_custom_plan",)
    # Planning the few statements that commit by themselves would take longer than running them. They find rows by
    # index, whatever the size of the table: without sequential scans the plan made for an empty table is right, too.
    _PLANNED_ONCE = ("SET plan_cache_mode = force_generic_plan", "SET enable_seqscan = off")

    def engine_options(self, url: sa.URL, pool_size: int) -> dict[str, Any]:
        """The size of the pool, the application's name for the server, and a deadline for connecting."""
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
        """Host, port and database."""
        return f"PostgreSQL at {url.host or 'localhost'}:{url.port or 5432}/{url.database or ''}"

    def rows(self, columns: ColumnTypes, parameter: sa.BindParameter[str] = BATCH) -> sa.FromClause:
        """By ``json_to_recordset``."""
        typed: list[sa.ColumnClause[Any]] = [sa.column(name, kind) for name, kind in columns.items()]
        records = sa.func.json_to_recordset(sa.cast(parameter, postgresql.JSON))
        return records.table_valued(*typed, name="b").render_derived(with_types=True)

    def insert(self, table: sa.Table) -> postgresql.Insert:
        """PostgreSQL's INSERT."""
        return postgresql.insert(table)

    def has_tags(self, column: sa.ColumnElement[Any], tags: Sequence[str]) -> sa.ColumnElement[bool]:
        """By ``@>``."""
        return column.op("@>", is_comparison=True)(sa.cast(sa.literal(list(tags), postgresql.JSONB), postgresql.JSONB))

    def each_with(
        self, outer: sa.FromClause, keys: sa.Select[Any], table: sa.Table, key: sa.ColumnElement[Any]
    ) -> sa.FromClause:
        """By a lateral join."""
        found = keys.correlate(outer).lateral("keys")
        return outer.join(found, sa.true()).join(table, key == found.c[0])

    async def next_numbers(self, connection: AsyncConnection, jobs: sa.Table, count: int) -> list[int]:
        """From the sequence of ``seq``."""
        sequence = sa.cast(sa.func.pg_get_serial_sequence(jobs.name, "seq"), postgresql.REGCLASS)
        number = sa.func.nextval(sequence, type_=sa.BigInteger)
        drawn = sa.select(number).select_from(sa.func.generate_series(1, count).alias("drawn"))
        return sorted((await connection.execute(drawn)).scalars())

    async def lock_for_migration(self, connection: AsyncConnection, jobs_table: str) -> None:
        """Take an advisory lock."""
        # Another process may take any time to migrate.
        await connection.execute(sa.text("SET LOCAL lock_timeout = 0"))
        key = zlib.crc32(f"jq_actors:{jobs_table}".encode())
        await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))

    def fault_of(self, error: sa.exc.StatementError) -> Fault:
        """By the SQLSTATE."""
        if not isinstance(error, sa.exc.DBAPIError):
            return Fault.REFUSED
        match getattr(error.orig, "sqlstate", None):
            case "40001" | "40P01":
                return Fault.CONFLICT
            case str(state) if state[:2] in ("22", "23", "54"):
                return Fault.REFUSED  # what cannot be, what must not be, and what is too large
            case None if isinstance(getattr(error.orig, "__cause__", None), ValueError):
                return Fault.REFUSED  # asyncpg could not encode a parameter
            case _:
                # This includes a missing table or privilege, a full disk, and a row that somebody keeps locked. Until
                # an operator repairs that, no outcome is thrown away, unless others can be written (`SetAside`).
                return Fault.AWAY


class SQLite(Dialect):
    """SQLite, by aiosqlite: one file, many processes."""

    name = "sqlite"
    deadline = 60.0
    server_time = None
    has_writable_ctes = False

    def __init__(self) -> None:
        self._queue, self._lock = asyncio.Lock(), asyncio.Lock()

    @asynccontextmanager
    async def write_lock(self, *, urgent: bool) -> AsyncIterator[None]:
        """A lock among the tasks of this process; an urgent task waits for at most two others."""
        # SQLite itself waits for its write lock in sleeps of up to 100 ms.
        if urgent:
            await self._lock.acquire()
        else:
            # Of the tasks in this queue only one waits for the lock itself.
            async with self._queue:
                await self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()

    def engine_options(self, url: sa.URL, pool_size: int) -> dict[str, Any]:
        """The size of the pool."""
        return {"pool_size": pool_size, "max_overflow": 2}

    def configure(self, engine: AsyncEngine, *, autocommit: bool = False) -> None:
        """Prepare each new connection, and begin writing transactions as such."""

        @event.listens_for(engine.sync_engine, "connect")
        def set_up(connection: Any, _record: Any) -> None:
            connection.isolation_level = None  # the driver's own BEGIN is a deferred one
            cursor = connection.cursor()
            cursor.execute("PRAGMA busy_timeout = 30000")
            # It fails at once, whatever the timeout, while another process does the same to a new file. The mode
            # belongs to the file, so it then holds for this process, too.
            with suppress(sqlite3.OperationalError):
                cursor.execute("PRAGMA journal_mode = WAL")
            cursor.close()

        @event.listens_for(engine.sync_engine, "begin")
        def begin(connection: sa.Connection) -> None:
            # A deferred transaction that begins to write fails at once, without waiting, if another process has
            # written since it began (A61).
            writes = connection.get_execution_options().get(WRITES)
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    def describe(self, url: sa.URL) -> str:
        """The path of the file."""
        return f"SQLite file {url.database}"

    def rows(self, columns: ColumnTypes, parameter: sa.BindParameter[str] = BATCH) -> sa.FromClause:
        """By ``json_each``."""
        each = sa.func.json_each(parameter).table_valued("value", name="each")
        fields = [
            sa.type_coerce(sa.func.json_extract(each.c.value, sa.literal_column(f"'$.{name}'")), kind).label(name)
            for name, kind in columns.items()
        ]
        return sa.select(*fields).select_from(each).subquery("b")

    def insert(self, table: sa.Table) -> sqlite.Insert:
        """SQLite's INSERT."""
        return sqlite.insert(table)

    def has_tags(self, column: sa.ColumnElement[Any], tags: Sequence[str]) -> sa.ColumnElement[bool]:
        """By ``json_each``, tag by tag."""
        each = sa.func.json_each(column).table_valued("value")
        return sa.and_(*(sa.exists(sa.select(each.c.value).where(each.c.value == tag)) for tag in tags))

    def each_with(
        self, outer: sa.FromClause, keys: sa.Select[Any], table: sa.Table, key: sa.ColumnElement[Any]
    ) -> sa.FromClause:
        """By a correlated IN."""
        return outer.join(table, key.in_(keys.correlate(outer)))

    async def next_numbers(self, connection: AsyncConnection, jobs: sa.Table, count: int) -> list[int]:
        """From the counter of AUTOINCREMENT."""
        # AUTOINCREMENT counts in this table, which has a row for ``jobs`` as soon as ``jobs`` has had one.
        given = sa.table("sqlite_sequence", sa.column("name", sa.Text), sa.column("seq", sa.Integer))
        draw = sa.update(given).where(given.c.name == jobs.name).values(seq=given.c.seq + count)
        last: int = (await connection.execute(draw.returning(given.c.seq))).scalar_one()
        return list(range(last - count + 1, last + 1))

    async def lock_for_migration(self, connection: AsyncConnection, jobs_table: str) -> None:
        """Do nothing: the transaction began IMMEDIATE, so it is the only writer."""

    def fault_of(self, error: sa.exc.StatementError) -> Fault:
        """By the class of the driver's error."""
        # All problems of the file, the disk and the locks are sqlite3.OperationalError.
        refused = not isinstance(error, sa.exc.DBAPIError) or isinstance(
            error, sa.exc.IntegrityError | sa.exc.DataError | sa.exc.ProgrammingError | sa.exc.InterfaceError
        )
        return Fault.REFUSED if refused else Fault.AWAY
