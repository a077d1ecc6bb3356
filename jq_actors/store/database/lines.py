"""Lines: how a statement that is a transaction of its own gets to the server, and its rows come back.

What SQLAlchemy adds to a small statement (a checkout, a greenlet for each step, a cursor, a result) takes longer than
the server needs for all of it: 0.5 ms of this process's time for a claim of one job, of which half is left by the
driver's own calls. For what is done for each job, that counts. So with asyncpg each kind of such statements has a
connection of its own, which is spoken to without SQLAlchemy.
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
"""Class of the states that a driver makes up when there is no answer of the server. Any other one is its answer."""

REPLAN_AFTER, REPLAN_USES = 0.5, 20
"""Seconds and executions after which the server plans a connection's statements anew. A generic plan that was made when
the table was nearly empty reads all of it each time, and would do so until the next ANALYZE: once there are 100,000
jobs, for each settlement."""

Statement = sa.Select[Any] | sa.UpdateBase


class NoAnswerError(Exception):
    """The statement was sent, and its answer is lost: nobody knows whether it is committed."""


class Executes(Protocol):
    """What takes a statement: a line, or a connection."""

    async def execute(self, statement: Any, parameters: Mapping[str, Any]) -> Iterable[Any]:
        """Its rows, whose columns are attributes."""
        ...


class Line(Executes, Protocol):
    """A way for the statements of one kind, one after the other.

    `execute` raises:
      NoAnswerError: see there.
      sa.exc.StatementError, sa.exc.TimeoutError, OSError, TimeoutError: surely nothing is committed.
    """

    async def close(self) -> None:
        """Let go of what is kept."""
        ...

    @property
    def kept(self) -> int:
        """Connections that are checked out although they do nothing."""
        ...


def make_line(engine: AsyncEngine, deadline: float, clock: Clock) -> Line:
    """The quickest way; each statement of ``engine`` is committed by itself, and gets ``deadline`` seconds."""
    line = AsyncpgLine if engine.dialect.driver == "asyncpg" else PoolLine
    return line(engine, deadline, clock)


class PoolLine:
    """By SQLAlchemy, and any connection."""

    def __init__(self, engine: AsyncEngine, deadline: float, clock: Clock) -> None:
        self._engine, self._deadline, self._clock = engine, deadline, clock

    async def execute(self, statement: Statement, parameters: Mapping[str, Any]) -> Iterable[Any]:
        """See Line."""
        sent = False
        try:
            async with asyncio.timeout(self._deadline), self._engine.connect() as connection:
                plans = (await connection.get_raw_connection()).info.setdefault("jq_plans", Plans())
                if plans.are_old(self._clock.monotonic()):
                    await connection.exec_driver_sql(DISCARD)
                sent = True
                result = await connection.execute(statement, parameters)
                return result.all() if result.returns_rows else []
        except sa.exc.DBAPIError as error:
            if sent and error.connection_invalidated:
                raise NoAnswerError from error
            raise
        except (OSError, TimeoutError, sa.exc.TimeoutError) as error:
            if sent:
                raise NoAnswerError from error
            raise

    async def close(self) -> None:
        """Nothing is kept."""

    @property
    def kept(self) -> int:
        """None."""
        return 0


class AsyncpgLine:
    """By a connection of its own, and asyncpg's calls."""

    def __init__(self, engine: AsyncEngine, deadline: float, clock: Clock) -> None:
        self._engine, self._deadline, self._clock = engine, deadline, clock
        self._compiled: dict[Statement, _Compiled] = {}
        self._connection: AsyncConnection | None = None
        self._driver: Any = None
        self._plans = Plans()
        self._one_at_a_time = asyncio.Lock()

    async def execute(self, statement: Statement, parameters: Mapping[str, Any]) -> Iterable[Any]:
        """See Line."""
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
                if not sent:
                    raise
                raise _told(error) from error
        return map(compiled.row, records)

    async def _connect(self) -> None:
        if self._driver is not None and self._driver.is_closed():
            await self.close()
        if self._driver is None:
            self._connection = await self._engine.connect()
            self._driver = (await self._connection.get_raw_connection()).driver_connection

    async def close(self) -> None:
        """Disconnect, whatever state the connection is in. It is made anew when it is needed."""
        connection, self._connection, self._driver = self._connection, None, None
        if connection is not None:
            await connection.invalidate()
            await connection.close()

    @property
    def kept(self) -> int:
        """The one, while nothing is executed."""
        return int(self._connection is not None and not self._one_at_a_time.locked())


@dataclass(slots=True)
class Plans:
    """Those that a connection keeps."""

    made_at: float = 0.0
    uses: int = 0

    def are_old(self, now: float) -> bool:
        """Whether they are to be made anew before the next use, which is counted."""
        self.uses += 1
        if self.uses <= REPLAN_USES or now - self.made_at < REPLAN_AFTER:
            return False
        self.made_at, self.uses = now, 1
        return True


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A statement as the driver takes it."""

    sql: str
    order: list[str]
    constants: Mapping[str, Any]
    make_row: Callable[..., Any]
    converters: list[tuple[int, Callable[[Any], Any]]]
    """Of the columns that SQLAlchemy has another form for than the driver."""

    def arguments(self, parameters: Mapping[str, Any]) -> list[Any]:
        """The values of the placeholders."""
        values = {**self.constants, **parameters}
        return [values[name] for name in self.order]

    def row(self, record: Iterable[Any]) -> Any:
        """A record as a row."""
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


def _told(error: BaseException) -> BaseException:
    """What the caller is told of an error after the statement was sent: the server's answer, or that there is none."""
    if not isinstance(error, Exception):
        return error
    state = getattr(error, "sqlstate", None)
    if state is not None and not state.startswith(NO_CONNECTION):
        return sa.exc.DBAPIError("", None, error)
    if isinstance(error, ValueError):  # asyncpg could not encode a parameter
        return sa.exc.StatementError(str(error), "", None, error)
    return NoAnswerError()
