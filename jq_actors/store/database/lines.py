"""Lines: how an autocommitted statement reaches the server, and how its rows come back.

SQLAlchemy surrounds a small statement with a checkout, a greenlet for each step, a cursor and a result. Together these
take longer than the server needs: the claim of one job takes 0.5 ms of this process's time, and only half of that is
spent in the driver's own calls. For statements that run once per job, that matters. Therefore, with asyncpg, each kind
of these statements has its own connection and uses it without SQLAlchemy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from jq_actors.clock import Clock

DISCARD = "DISCARD PLANS"
NO_CONNECTION = "08"
"""The SQLSTATE class that a driver itself reports when the server does not answer. Any other class is an answer."""

REPLAN_AFTER, REPLAN_USES = 0.5, 20
"""Seconds and executions after which the server must plan a connection's statements again. A generic plan made while
the table was nearly empty scans the whole table each time, until the next ANALYZE: with 100,000 jobs, that is one such
scan per settlement."""

Statement = sa.Select[Any] | sa.CompoundSelect[Any] | sa.UpdateBase


class NoAnswerError(Exception):
    """The statement was sent, but its answer was lost, so it may be committed."""


class Line(Protocol):
    """Executes the statements of one kind, one after the other."""

    async def execute(self, statement: Statement, parameters: Mapping[str, Any]) -> Iterable[Any]:
        """Execute and commit ``statement``, and return its rows, whose columns are attributes.

        Raises:
          NoAnswerError: the statement may be committed.
          sa.exc.StatementError, sa.exc.TimeoutError, OSError, TimeoutError: nothing is committed.
        """
        ...

    async def close(self) -> None:
        """Disconnect."""
        ...

    @property
    def kept(self) -> int:
        """How many connections are checked out although they are idle."""
        ...


def make_line(engine: AsyncEngine, deadline: float, clock: Clock) -> Line:
    """Make the fastest line for ``engine``, which must autocommit. Each statement gets ``deadline`` seconds."""
    line = AsyncpgLine if engine.dialect.driver == "asyncpg" else PoolLine
    return line(engine, deadline, clock)


class PoolLine:
    """Executes through SQLAlchemy, on any connection of the pool."""

    def __init__(self, engine: AsyncEngine, deadline: float, clock: Clock) -> None:
        self._engine, self._deadline, self._clock = engine, deadline, clock

    async def execute(self, statement: Statement, parameters: Mapping[str, Any]) -> Iterable[Any]:
        """Execute the statement through SQLAlchemy."""
        sent = False
        try:
            async with asyncio.timeout(self._deadline), self._engine.connect() as connection:
                plans = (await connection.get_raw_connection()).info.setdefault("jq_plans", Plans())
                if plans.are_old(self._clock.monotonic()):
                    await connection.exec_driver_sql(DISCARD)
                sent = True
                result = await connection.execute(statement, parameters)
                return result.all() if result.returns_rows else []
        except BaseException as error:
            if not sent or (meaning := _meaning(error)) is error:
                raise
            raise meaning from error

    async def close(self) -> None:
        """Do nothing, since no connection is kept."""

    @property
    def kept(self) -> int:
        """Always 0."""
        return 0


class AsyncpgLine:
    """Executes through asyncpg, on its own connection."""

    def __init__(self, engine: AsyncEngine, deadline: float, clock: Clock) -> None:
        self._engine, self._deadline, self._clock = engine, deadline, clock
        self._compiled: dict[Statement, _Compiled] = {}
        self._connection: AsyncConnection | None = None
        self._driver: Any = None
        self._plans = Plans()
        self._one_at_a_time = asyncio.Lock()

    async def execute(self, statement: Statement, parameters: Mapping[str, Any]) -> Iterable[Any]:
        """Execute the statement through asyncpg. Any error closes the connection, since its state is unknown."""
        compiled = self._compiled.get(statement)
        if compiled is None:
            compiled = self._compiled[statement] = _compile(statement, self._engine.sync_engine.dialect)
        sent = False
        async with self._one_at_a_time:
            try:
                async with asyncio.timeout(self._deadline):
                    await self._connect()
                    if self._plans.are_old(self._clock.monotonic()):
                        await self._driver.execute(DISCARD)
                    sent = True
                    records = await self._driver.fetch(compiled.sql, *compiled.arguments(parameters))
            except BaseException as error:
                await self.close()
                if not sent or (meaning := _meaning(error)) is error:
                    raise
                raise meaning from error
        return map(compiled.row, records)

    async def _connect(self) -> None:
        if self._driver is not None and self._driver.is_closed():
            await self.close()
        if self._driver is None:
            self._connection = await self._engine.connect()
            self._driver = (await self._connection.get_raw_connection()).driver_connection

    async def close(self) -> None:
        """Disconnect, whatever state the connection is in. The next statement connects again."""
        connection, self._connection, self._driver = self._connection, None, None
        if connection is not None:
            await connection.invalidate()
            await connection.close()

    @property
    def kept(self) -> int:
        """1 while the line is connected but idle, otherwise 0."""
        return int(self._connection is not None and not self._one_at_a_time.locked())


@dataclass(slots=True)
class Plans:
    """The plans that the server keeps for a connection."""

    made_at: float = 0.0
    uses: int = 0

    def are_old(self, now: float) -> bool:
        """Count a use, and return whether the plans must be discarded before it."""
        self.uses += 1
        if self.uses <= REPLAN_USES or now - self.made_at < REPLAN_AFTER:
            return False
        self.made_at, self.uses = now, 1
        return True


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A statement in the form that the driver accepts."""

    sql: str
    order: list[str]
    constants: Mapping[str, Any]
    make_row: Callable[..., Any]
    converters: list[tuple[int, Callable[[Any], Any]]]
    """For the columns whose values SQLAlchemy converts after the driver."""

    def arguments(self, parameters: Mapping[str, Any]) -> list[Any]:
        """Return the values of the placeholders, in order."""
        values = {**self.constants, **parameters}
        return [values[name] for name in self.order]

    def row(self, record: Iterable[Any]) -> Any:
        """Return a driver's record as a row."""
        values = list(record)
        for index, convert in self.converters:
            values[index] = convert(values[index])
        return self.make_row(values)


def _compile(statement: Statement, dialect: sa.Dialect) -> _Compiled:
    compiled = statement.compile(dialect=dialect)
    columns = list(statement.exported_columns)
    processors = [column.type.dialect_impl(dialect).result_processor(dialect, None) for column in columns]
    return _Compiled(
        str(compiled),
        list(getattr(compiled, "positiontup", None) or []),
        compiled.params,
        NamedTuple("Row", [(column.name, Any) for column in columns])._make,
        [(index, processor) for index, processor in enumerate(processors) if processor is not None],
    )


def _meaning(error: BaseException) -> BaseException:
    """Translate an error that came after the statement was sent: either the server's answer, or `NoAnswerError`."""
    if not isinstance(error, Exception):
        return error
    if isinstance(error, sa.exc.StatementError):
        is_lost = isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated
        return NoAnswerError() if is_lost else error
    state = getattr(error, "sqlstate", None)
    if state is not None and not state.startswith(NO_CONNECTION):
        return sa.exc.DBAPIError("", None, error)
    if isinstance(error, ValueError):  # asyncpg could not encode a parameter
        return sa.exc.StatementError(str(error), "", None, error)
    return NoAnswerError()
