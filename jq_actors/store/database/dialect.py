"""What PostgreSQL and SQLite say differently (`dialects`); nothing else in the store asks which of them it talks to.

A batch travels as ONE JSON parameter, so that a statement's text is constant: it is compiled and prepared
once, whatever the number of rows. `Dialect.rows` turns that parameter into something to select from.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import datetime
from enum import Enum, auto
from operator import itemgetter
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from jq_actors.store.tables import iso_utc

ColumnTypes = Mapping[str, sa.types.TypeEngine[Any]]

BATCH = sa.bindparam("batch", type_=sa.Text)
"""The JSON parameter of every batch statement; `encode_rows` makes its value."""

WRITES = "jq_writes"
"""Execution option of the engine whose transactions write."""


class Fault(Enum):
    """What a database error means to the one who has something to write."""

    AWAY = auto()
    """The database cannot take it now, whatever it is: keep it and try again."""
    CONFLICT = auto()
    """Rolled back because of another transaction: try again at once."""
    REFUSED = auto()
    """These very values cannot be stored; trying again is in vain."""


class Dialect(ABC):
    """One kind of database."""

    name: ClassVar[str]
    """What SQLAlchemy calls it."""
    deadline: ClassVar[float]
    """Seconds after which a transaction is given up, so that a half-open connection stops nobody for ever."""
    server_time: ClassVar[sa.ColumnElement[datetime] | None]
    """The server's clock; ``None``: it is this machine's."""

    nests_writes: ClassVar[bool]
    """Whether a statement that changes rows may contain others. Then what needs no more than one statement is a
    transaction by itself (`Database.try_alone`). Else whoever writes is alone, and has no need to hurry."""

    def write_lock(self, *, urgent: bool) -> AbstractAsyncContextManager[Any]:
        """Held around each write transaction of this process; who is ``urgent`` goes before the others."""
        return nullcontext()

    @abstractmethod
    def engine_options(self, url: sa.URL, pool_size: int) -> dict[str, Any]:
        """Arguments of ``create_async_engine``."""

    @abstractmethod
    def configure(self, engine: AsyncEngine, *, each_alone: bool = False) -> None:
        """Set up the engine's connections and transactions. ``each_alone``: each statement is a transaction."""

    @abstractmethod
    def describe(self, url: sa.URL) -> str:
        """The database in words, without a secret."""

    @abstractmethod
    def rows(self, columns: ColumnTypes, parameter: sa.BindParameter[str] = BATCH) -> sa.FromClause:
        """The rows of the JSON parameter as a table ``b`` with these columns."""

    @abstractmethod
    def insert(self, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
        """An INSERT that knows ON CONFLICT."""

    @abstractmethod
    def has_tags(self, column: sa.ColumnElement[Any], tags: Sequence[str]) -> sa.ColumnElement[bool]:
        """Whether the JSON array in ``column`` holds all of ``tags``."""

    @abstractmethod
    def each_with(
        self, outer: sa.FromClause, keys: sa.Select[Any], table: sa.Table, key: sa.ColumnElement[Any]
    ) -> sa.FromClause:
        """Each row of ``outer`` with those of ``table`` whose ``key`` is among its ``keys``, a query that names it."""

    @abstractmethod
    async def next_numbers(self, connection: AsyncConnection, jobs: sa.Table, count: int) -> list[int]:
        """``count`` numbers, ascending, after every ``seq`` that was given so far; no row will get them."""

    @abstractmethod
    async def lock_for_migration(self, connection: AsyncConnection, jobs_table: str) -> None:
        """Let no other process migrate these tables until the transaction ends."""

    @abstractmethod
    def fault_of(self, error: sa.exc.StatementError) -> Fault:
        """What ``error`` means."""


def encode_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """The value of the parameter ``batch``. ASCII, so that no text can be one that a driver cannot encode.

    Rows of jobs come in the order of their ids, in which a statement then locks them. So two of them never wait for
    each other in a circle, which the server would find out after a second.
    """
    if rows and "id" in rows[0]:
        rows = sorted(rows, key=itemgetter("id"))
    return json.dumps(rows, default=_encode, separators=(",", ":"))


def _encode(value: object) -> str:
    if isinstance(value, datetime):
        return iso_utc(value)
    raise TypeError(f"{type(value).__name__} has no form in a batch")
