"""What differs between PostgreSQL and SQLite (`dialects`). No other part of the store checks which one it uses.

A batch is passed as ONE JSON parameter, so the text of a statement is constant. It is compiled and prepared once,
however many rows there are. `Dialect.rows` turns that parameter into something to select from.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import datetime
from enum import Enum, auto
from operator import itemgetter
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from jq_actors.store.tables import UtcDateTime, iso_utc

ColumnTypes = Mapping[str, sa.types.TypeEngine[Any]]

BATCH = sa.bindparam("batch", type_=sa.Text)
"""The JSON parameter of every batch statement. `encode_rows` makes its value."""

NOW = sa.bindparam("now", type_=UtcDateTime)
LIMIT = sa.bindparam("limit", type_=sa.Integer)
"""Parameters of many statements."""

WRITES = "jq_writes"
"""The execution option that marks an engine whose transactions write."""


class Fault(Enum):
    """What a database error means to a caller that wants to write."""

    AWAY = auto()
    """The database cannot accept any write now: keep the values and try again."""
    CONFLICT = auto()
    """The transaction was rolled back because of another one: try again at once."""
    REFUSED = auto()
    """These values cannot be stored, and trying again cannot succeed."""


class Dialect(ABC):
    """One kind of database."""

    name: ClassVar[str]
    """SQLAlchemy's name for it."""
    deadline: ClassVar[float]
    """Seconds after which a transaction is given up, so that a half-open connection does not block others for ever."""
    server_time: ClassVar[sa.ColumnElement[datetime] | None]
    """An expression for the server's clock; ``None``: the database uses this machine's."""

    has_writable_ctes: ClassVar[bool]
    """Whether one statement can change several tables. If so, work that fits into one statement takes the fast path and
    commits by itself (`Database.try_autocommit`). SQLite has one writer at a time and does not need a fast path."""

    def write_lock(self, *, urgent: bool) -> AbstractAsyncContextManager[Any]:
        """A lock around each write transaction of this process. An ``urgent`` one goes ahead of the others."""
        return nullcontext()

    @abstractmethod
    def engine_options(self, url: sa.URL, pool_size: int) -> dict[str, Any]:
        """Return the arguments for ``create_async_engine``."""

    @abstractmethod
    def configure(self, engine: AsyncEngine, *, autocommit: bool = False) -> None:
        """Set up the engine's connections and transactions. ``autocommit``: each statement is its own transaction."""

    @abstractmethod
    def describe(self, url: sa.URL) -> str:
        """Describe the database in words, without secrets."""

    @abstractmethod
    def rows(self, columns: ColumnTypes, parameter: sa.BindParameter[str] = BATCH) -> sa.FromClause:
        """Return the rows of the JSON parameter as a table ``b`` with these columns."""

    @abstractmethod
    def insert(self, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
        """Return an INSERT that supports ON CONFLICT."""

    @abstractmethod
    def has_tags(self, column: sa.ColumnElement[Any], tags: Sequence[str]) -> sa.ColumnElement[bool]:
        """Whether the JSON array in ``column`` contains all of ``tags``."""

    @abstractmethod
    def each_with(
        self, outer: sa.FromClause, keys: sa.Select[Any], table: sa.Table, key: sa.ColumnElement[Any]
    ) -> sa.FromClause:
        """Join each row of ``outer`` with the rows of ``table`` whose ``key`` the correlated query ``keys`` gives."""

    @abstractmethod
    async def next_numbers(self, connection: AsyncConnection, jobs: sa.Table, count: int) -> list[int]:
        """Draw ``count`` ascending numbers, greater than every ``seq`` so far. The database never assigns them."""

    @abstractmethod
    async def lock_for_migration(self, connection: AsyncConnection, jobs_table: str) -> None:
        """Keep other processes from migrating these tables until the transaction ends."""

    @abstractmethod
    def fault_of(self, error: sa.exc.StatementError) -> Fault:
        """Return what ``error`` means."""


def encode_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the value of the parameter ``batch``. It is ASCII, so every driver can encode it.

    Rows of jobs are sorted by id, and a statement locks them in that order. Two statements therefore never deadlock,
    which the server would notice only after a second.
    """
    if rows and "id" in rows[0]:
        rows = sorted(rows, key=itemgetter("id"))
    return json.dumps(rows, default=_encode, separators=(",", ":"))


def encode_column(name: str, values: Iterable[Any]) -> str:
    """Return the value of the parameter ``batch`` for rows with a single column."""
    return encode_rows([{name: value} for value in values])


def _encode(value: object) -> str:
    if isinstance(value, datetime):
        return iso_utc(value)
    raise TypeError(f"{type(value).__name__} cannot be put into a batch")
