"""How the statement that inserts new jobs gets to the server, as a transaction of its own.

What SQLAlchemy adds to a small statement (a checkout, a greenlet for each step, a cursor, a result) takes longer than
the server needs for all of it. For what is done once for each job that is sent, that counts: with asyncpg, a connection
is kept for it, and spoken to by the driver's own calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

NO_CONNECTION = "08"
"""Class of the states that a driver makes up when there is no answer of the server. Any other one is its answer."""


class InsertLine(Protocol):
    """A way of one statement to the server."""

    async def insert(self, parameters: Mapping[str, Any], deadline: float) -> bool:
        """Execute the statement, which gets all of its parameters, within ``deadline`` seconds.

        ``False``: the answer is lost; nobody knows whether it is committed.

        Raises:
          sa.exc.StatementError, sa.exc.TimeoutError, OSError, TimeoutError: surely it is not.
        """
        ...

    async def close(self) -> None:
        """Let go of what is kept."""
        ...

    @property
    def kept(self) -> int:
        """Connections that are checked out although they do nothing."""
        ...


def insert_line(engine: AsyncEngine, statement: sa.Insert) -> InsertLine:
    """The quickest way; each statement of ``engine`` is committed by itself."""
    return AsyncpgLine(engine, statement) if engine.dialect.driver == "asyncpg" else PoolLine(engine, statement)


class PoolLine:
    """By SQLAlchemy, and any connection."""

    def __init__(self, engine: AsyncEngine, statement: sa.Insert) -> None:
        self._engine, self._statement = engine, statement

    async def insert(self, parameters: Mapping[str, Any], deadline: float) -> bool:
        """See InsertLine."""
        sent = False
        try:
            async with asyncio.timeout(deadline), self._engine.connect() as connection:
                sent = True
                await connection.execute(self._statement, parameters)
        except sa.exc.DBAPIError as error:
            if sent and error.connection_invalidated:
                return False
            raise
        except (OSError, TimeoutError, sa.exc.TimeoutError):
            if sent:
                return False
            raise
        return True

    async def close(self) -> None:
        """Nothing is kept."""

    @property
    def kept(self) -> int:
        """None."""
        return 0


class AsyncpgLine:
    """By a connection of its own, and asyncpg's calls."""

    def __init__(self, engine: AsyncEngine, statement: sa.Insert) -> None:
        self._engine = engine
        compiled = statement.compile(dialect=engine.sync_engine.dialect)
        self._sql, self._order = str(compiled), compiled.positiontup or []
        self._connection: AsyncConnection | None = None
        self._driver: Any = None
        self._one_at_a_time = asyncio.Lock()

    async def insert(self, parameters: Mapping[str, Any], deadline: float) -> bool:
        """See InsertLine."""
        sent = False
        async with self._one_at_a_time:
            try:
                async with asyncio.timeout(deadline):
                    await self._connect()
                    sent = True
                    await self._driver.fetch(self._sql, *[parameters[name] for name in self._order])
            except BaseException as error:
                await self.close()
                if not sent:
                    raise
                return self._lost(error)
        return True

    def _lost(self, error: BaseException) -> bool:
        """``False``, when there was no answer; raises when there was one."""
        if not isinstance(error, Exception):
            raise error
        state = getattr(error, "sqlstate", None)
        if state is not None and not state.startswith(NO_CONNECTION):
            raise sa.exc.DBAPIError("INSERT", None, error) from error
        if isinstance(error, ValueError):  # asyncpg could not encode a parameter
            raise sa.exc.StatementError(str(error), "INSERT", None, error) from error
        return False

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
        """The one, while nothing is inserted."""
        return int(self._connection is not None and not self._one_at_a_time.locked())
