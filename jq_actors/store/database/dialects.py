"""PostgreSQL and SQLite."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from .dialect import BATCH, WRITES, ColumnTypes, Dialect, Fault
from .write_lock import WriteLock


def dialect_of(url: str) -> tuple[sa.URL, Dialect]:
    """The parsed ``url`` and its dialect.

    Raises:
      ValueError: not a URL of a database and driver that the store knows; says which are.
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
    nests_writes = True

    _SESSION = (
        # What is asked for is in memory. By default the planner reads a whole small table rather than some of its rows
        # by their ids.
        "SET random_page_cost = 1.1",
        # A server that may forget commits would forget claims, and let a job run twice. Stronger ways stay as they are.
        "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
        # psycopg reads the file of any other zone, on the loop.
        "SET TIME ZONE 'UTC'",
        # A process that is stopped (SIGSTOP, a frozen host) within a transaction must not keep its rows locked.
        "SET idle_in_transaction_session_timeout = '15s'",
        # A row that an operator's transaction keeps locked must not cost the others a deadline each time it is tried.
        "SET lock_timeout = '5s'",
    )
    # A plan that was made for an empty table would scan a full one until the next ANALYZE; planning anew costs
    # a statement some 0.2 ms.
    _PLANNED_EACH_TIME = ("SET plan_cache_mode = force_custom_plan",)
    # The few statements that are a transaction each would be planned for longer than they run. They find rows by
    # indexes, however many there are: with this their plan is right for an empty table, too.
    _PLANNED_ONCE = ("SET plan_cache_mode = force_generic_plan", "SET enable_seqscan = off")

    def engine_options(self, url: sa.URL, pool_size: int) -> dict[str, Any]:
        """See Dialect."""
        if url.drivername.endswith("asyncpg"):
            connect = {"timeout": 10, "server_settings": {"application_name": "jq_actors"}}
        else:
            connect = {"connect_timeout": 10, "application_name": "jq_actors"}
        return {"pool_size": pool_size, "max_overflow": 2, "connect_args": connect}

    def configure(self, engine: AsyncEngine, *, each_alone: bool = False) -> None:
        """See Dialect."""

        @event.listens_for(engine.sync_engine, "connect")
        def set_up(connection: Any, _record: Any) -> None:
            cursor = connection.cursor()
            for statement in self._SESSION + (self._PLANNED_ONCE if each_alone else self._PLANNED_EACH_TIME):
                cursor.execute(statement)
            cursor.close()
            connection.commit()

    def describe(self, url: sa.URL) -> str:
        """See Dialect."""
        return f"PostgreSQL at {url.host or 'localhost'}:{url.port or 5432}/{url.database or ''}"

    def rows(self, columns: ColumnTypes, parameter: sa.BindParameter[str] = BATCH) -> sa.FromClause:
        """See Dialect."""
        typed: list[sa.ColumnClause[Any]] = [sa.column(name, kind) for name, kind in columns.items()]
        records = sa.func.json_to_recordset(sa.cast(parameter, postgresql.JSON))
        return records.table_valued(*typed, name="b").render_derived(with_types=True)

    def insert(self, table: sa.Table) -> postgresql.Insert:
        """See Dialect."""
        return postgresql.insert(table)

    def has_tags(self, column: sa.ColumnElement[Any], tags: Sequence[str]) -> sa.ColumnElement[bool]:
        """See Dialect."""
        return column.op("@>", is_comparison=True)(sa.cast(sa.literal(list(tags), postgresql.JSONB), postgresql.JSONB))

    def each_with(
        self, outer: sa.FromClause, keys: sa.Select[Any], table: sa.Table, key: sa.ColumnElement[Any]
    ) -> sa.FromClause:
        """See Dialect."""
        found = keys.correlate(outer).lateral("keys")
        return outer.join(found, sa.true()).join(table, key == found.c[0])

    async def next_numbers(self, connection: AsyncConnection, jobs: sa.Table, count: int) -> list[int]:
        """See Dialect."""
        sequence = sa.cast(sa.func.pg_get_serial_sequence(jobs.name, "seq"), postgresql.REGCLASS)
        number = sa.func.nextval(sequence, type_=sa.BigInteger)
        drawn = sa.select(number).select_from(sa.func.generate_series(1, count).alias("drawn"))
        return sorted((await connection.execute(drawn)).scalars())

    async def lock_for_migration(self, connection: AsyncConnection, jobs_table: str) -> None:
        """See Dialect."""
        # As long as the others need for it.
        await connection.execute(sa.text("SET LOCAL lock_timeout = 0"))
        key = zlib.crc32(f"jq_actors:{jobs_table}".encode())
        await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))

    def fault_of(self, error: sa.exc.StatementError) -> Fault:
        """See Dialect."""
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
                # Also a missing table or right, a full disk, a row that somebody keeps locked: until an operator puts
                # it in order, no outcome is thrown away, unless others can be written (`SetAside`).
                return Fault.AWAY


class SQLite(Dialect):
    """SQLite, by aiosqlite: one file, many processes."""

    name = "sqlite"
    deadline = 60.0
    server_time = None
    nests_writes = False

    def __init__(self) -> None:
        self._lock = WriteLock()

    def write_lock(self, *, urgent: bool) -> AbstractAsyncContextManager[Any]:
        """See Dialect."""
        # SQLite waits for its write lock in sleeps of up to 100 ms; among our own tasks there is no need to.
        return self._lock.held(urgent=urgent)

    def engine_options(self, url: sa.URL, pool_size: int) -> dict[str, Any]:
        """See Dialect."""
        return {"pool_size": pool_size, "max_overflow": 2}

    def configure(self, engine: AsyncEngine, *, each_alone: bool = False) -> None:
        """See Dialect."""

        @event.listens_for(engine.sync_engine, "connect")
        def set_up(connection: Any, _record: Any) -> None:
            connection.isolation_level = None  # the driver's own BEGIN is a deferred one
            cursor = connection.cursor()
            cursor.execute("PRAGMA busy_timeout = 30000")
            # Refused at once, whatever the timeout, when another process just does the same to a new file; the mode is
            # the file's, so it then holds for us, too.
            with suppress(sqlite3.OperationalError):
                cursor.execute("PRAGMA journal_mode = WAL")
            cursor.close()

        @event.listens_for(engine.sync_engine, "begin")
        def begin(connection: sa.Connection) -> None:
            # A deferred transaction that turns into a writing one fails at once, without waiting, when another
            # process wrote since it began (A61).
            writes = connection.get_execution_options().get(WRITES)
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    def describe(self, url: sa.URL) -> str:
        """See Dialect."""
        return f"SQLite file {url.database}"

    def rows(self, columns: ColumnTypes, parameter: sa.BindParameter[str] = BATCH) -> sa.FromClause:
        """See Dialect."""
        each = sa.func.json_each(parameter).table_valued("value", name="each")
        fields = [
            sa.type_coerce(sa.func.json_extract(each.c.value, sa.literal_column(f"'$.{name}'")), kind).label(name)
            for name, kind in columns.items()
        ]
        return sa.select(*fields).select_from(each).subquery("b")

    def insert(self, table: sa.Table) -> sqlite.Insert:
        """See Dialect."""
        return sqlite.insert(table)

    def has_tags(self, column: sa.ColumnElement[Any], tags: Sequence[str]) -> sa.ColumnElement[bool]:
        """See Dialect."""
        each = sa.func.json_each(column).table_valued("value")
        return sa.and_(*(sa.exists(sa.select(each.c.value).where(each.c.value == tag)) for tag in tags))

    def each_with(
        self, outer: sa.FromClause, keys: sa.Select[Any], table: sa.Table, key: sa.ColumnElement[Any]
    ) -> sa.FromClause:
        """See Dialect."""
        return outer.join(table, key.in_(keys.correlate(outer)))

    async def next_numbers(self, connection: AsyncConnection, jobs: sa.Table, count: int) -> list[int]:
        """See Dialect."""
        # What AUTOINCREMENT counts by. It has a row as soon as the table has had one.
        given = sa.table("sqlite_sequence", sa.column("name", sa.Text), sa.column("seq", sa.Integer))
        draw = sa.update(given).where(given.c.name == jobs.name).values(seq=given.c.seq + count)
        last: int = (await connection.execute(draw.returning(given.c.seq))).scalar_one()
        return list(range(last - count + 1, last + 1))

    async def lock_for_migration(self, connection: AsyncConnection, jobs_table: str) -> None:
        """Nothing to do: the transaction began IMMEDIATE, so it is the only one that writes."""

    def fault_of(self, error: sa.exc.StatementError) -> Fault:
        """See Dialect."""
        # sqlite3.OperationalError is all that the file, the disk and its locks can say.
        refused = not isinstance(error, sa.exc.DBAPIError) or isinstance(
            error, sa.exc.IntegrityError | sa.exc.DataError | sa.exc.ProgrammingError | sa.exc.InterfaceError
        )
        return Fault.REFUSED if refused else Fault.AWAY
