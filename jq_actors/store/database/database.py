"""Access to one database: transactions that survive a cancelled caller, translated errors, one report per outage."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from jq_actors.clock import Clock
from jq_actors.concurrency.in_thread import in_thread
from jq_actors.config.urls import mask_url
from jq_actors.errors import StoreError, StoreUnavailableError, StoreUnknownError
from jq_actors.events import Events, StoreBack, StoreLost

from .dialect import Fault
from .dialects import dialect_of
from .engines import Engines, make_engines
from .lines import Line, NoAnswerError, Statement, make_line

T = TypeVar("T")
Work = Callable[[AsyncConnection], Awaitable[T]]
"""The work of one transaction. It may be called again after a conflict, so it must have no other side effects."""

MAX_CONFLICTS = 20
"""How often a transaction is tried if it is rolled back because of others."""
ANSWER_TIMEOUT = 5.0
"""Seconds within which a reachable database must answer."""


class Database:
    """One database, reached through connection pools. Everything happens on one loop.

    Each transaction runs in its own task. A cancelled caller therefore neither interrupts it nor leaves a connection
    checked out or dirty (A60).

    Raises (the constructor):
      ValueError: the URL is not of a supported kind.
    """

    def __init__(self, url: str, *, pool_size: int, clock: Clock, events: Events) -> None:
        self._url, self.dialect = dialect_of(url)
        self.description = self.dialect.describe(self._url)
        self._pool_size = pool_size
        self._clock, self._events = clock, events
        self._engines: Engines | None = None
        self._lines: dict[str, Line] = {}
        self._making = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._away_since: float | None = None
        self._ready = self._closed = False
        self._ahead = timedelta()

    def now(self) -> datetime:
        """Return the server's time: this machine's clock, corrected by the measured difference."""
        return self._clock.wall() + self._ahead

    async def write(self, work: Work[T], *, unready: bool = False) -> T:
        """Commit ``work``, all or nothing, and return its result.

        ``unready`` (for migrations): work even before `make_ready`, and without a deadline.

        Raises:
          StoreUnavailableError: the database cannot be reached; nothing is written.
          StoreUnknownError: the database was lost during the commit; the work may be written.
          StoreError: the database refuses the values.
        """
        return await self._in_own_task(self._write(work, None if unready else self.dialect.deadline, unready=unready))

    async def write_urgently(self, work: Work[T], deadline: float) -> T:
        """Commit ``work`` within ``deadline`` seconds, ahead of other writes, on a reserved connection.

        It therefore works even while long statements occupy all other connections. Raises as `write` does.
        """
        return await self._in_own_task(self._write(work, deadline, urgent=True))

    async def autocommit(self, kind: str, statement: Statement, parameters: Mapping[str, Any]) -> list[Any] | None:
        """Execute ``statement`` as its own transaction, and return its rows.

        The statements of one ``kind`` wait for each other, but not for others. They run in the caller's task, and
        cancelling it loses the connection. The dialect must have `has_writable_ctes`.

        Returns ``None`` if the statement may be committed or if another transaction was in the way. Neither is
        reported as an outage.

        Raises:
          StoreUnavailableError: the database cannot be reached; nothing is written.
          StoreError: the database refuses the values.
        """
        try:
            return await self._autocommit(kind, statement, parameters)
        except NoAnswerError:
            return None
        except sa.exc.StatementError as error:
            if self.dialect.fault_of(error) is Fault.CONFLICT:
                return None
            raise self._translated(error, committing=False) from error
        except (OSError, TimeoutError, sa.exc.TimeoutError) as error:
            raise self._unavailable(str(error) or "no answer", committing=False) from error

    async def try_autocommit(self, kind: str, statement: Statement, parameters: Mapping[str, Any]) -> list[Any] | None:
        """Do what `autocommit` does, for a caller that uses `write` if this does not succeed.

        If the connection is lost or cannot be opened, it therefore also returns ``None``, and reports no outage.

        Raises:
          StoreUnknownError: the database cannot accept any write now; the statement may be committed.
          StoreError: the database refuses the values.
        """
        try:
            return await self._autocommit(kind, statement, parameters)
        except sa.exc.StatementError as error:
            is_lost = isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated
            if not is_lost and self.dialect.fault_of(error) is not Fault.CONFLICT:
                raise self._translated(error, committing=True) from error
            return None
        except (NoAnswerError, OSError, TimeoutError, sa.exc.TimeoutError):
            return None

    async def read(self, work: Work[T], *, unready: bool = False) -> T:
        """Do ``work``, which must not change anything, and return its result. Raises as `write` does."""
        return await self._in_own_task(self._read(work, unready=unready))

    async def answers(self) -> bool:
        """Return whether the database answers a trivial query. It may still refuse writes."""
        try:
            await self._in_own_task(self._ask())
        except (StoreError, sa.exc.StatementError, OSError, TimeoutError, sa.exc.TimeoutError):
            return False
        return True

    async def measure(self, connection: AsyncConnection) -> None:
        """Measure how far the server's clock is ahead of this machine's. A difference within the error counts as zero.

        Otherwise the error of a busy moment would make the times in this worker's rows inconsistent.
        """
        if self.dialect.server_time is None:
            return
        query = sa.select(self.dialect.server_time)
        before = self._clock.wall()
        server = await connection.scalar(query) or before
        uncertain = (self._clock.wall() - before) / 2
        ahead = server - before - uncertain
        self._ahead = ahead if abs(ahead) > uncertain else timedelta()

    def make_ready(self) -> None:
        """Allow work that is not ``unready``, now that the tables are as this release needs them."""
        self._ready = True
        self._back()

    def lost(self, reason: str) -> None:
        """Report that the database cannot be used. Further calls report nothing until it is back."""
        if self._away_since is None:
            self._away_since = self._clock.monotonic()
            self._events.emit(StoreLost(reason))

    async def close(self, timeout: float) -> None:
        """Let transactions finish for at most ``timeout`` seconds, then disconnect."""
        self._closed = True
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=timeout)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        for line in self._lines.values():
            await line.close()
        if self._engines is not None:
            for engine in self._engines.with_pools:
                await engine.dispose()

    @property
    def checked_out(self) -> int:
        """How many connections are in use now."""
        pools = [] if self._engines is None else [engine.pool for engine in self._engines.with_pools]
        kept = sum(line.kept for line in self._lines.values())
        return sum(pool.checkedout() for pool in pools if isinstance(pool, sa.pool.QueuePool)) - kept

    # -- one transaction

    async def _autocommit(self, kind: str, statement: Statement, parameters: Mapping[str, Any]) -> list[Any]:
        engines = await self._connected(unready=False)
        line = self._lines.get(kind)
        if line is None:
            line = self._lines[kind] = make_line(engines.autocommit, self.dialect.deadline, self._clock)
        rows = list(await line.execute(statement, parameters))
        self._back()
        return rows

    async def _in_own_task(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _ask(self) -> None:
        engines = await self._connected(unready=False)
        async with asyncio.timeout(ANSWER_TIMEOUT), engines.urgent.connect() as connection:
            await connection.execute(sa.select(1))

    async def _read(self, work: Work[T], *, unready: bool) -> T:
        engines = await self._connected(unready=unready)
        return await self._transact(engines.reader, work, self.dialect.deadline)

    async def _write(self, work: Work[T], deadline: float | None, *, unready: bool = False, urgent: bool = False) -> T:
        engines = await self._connected(unready=unready)
        for conflicts in range(MAX_CONFLICTS):
            try:
                async with self.dialect.write_lock(urgent=urgent):
                    return await self._transact(engines.urgent if urgent else engines.writer, work, deadline)
            except _ConflictError:
                # Without the random pause, two transactions that conflicted once could conflict for ever.
                await self._clock.sleep(self._clock.random() * 0.01 * 2 ** min(conflicts, 5))
        raise StoreUnavailableError(
            f"{self.description}: rolled back {MAX_CONFLICTS} times because of other transactions."
        )

    async def _transact(self, engine: AsyncEngine, work: Work[T], deadline: float | None) -> T:
        progress = _Progress()
        try:
            async with asyncio.timeout(deadline):
                try:
                    answer = await _once(engine, work, progress)
                except sa.exc.DBAPIError as error:
                    if progress.committing or not error.connection_invalidated:
                        raise
                    # The connection may have died in the pool, for example because the server was restarted. The pool
                    # has now dropped all connections of that age, so the next one is new or cannot be opened.
                    answer = await _once(engine, work, progress)
        except sa.exc.StatementError as error:
            raise self._translated(error, committing=progress.committing) from error
        except (OSError, TimeoutError, sa.exc.TimeoutError) as error:
            reason = str(error) or f"no answer within {deadline} s"
            raise self._unavailable(reason, committing=progress.committing) from error
        self._back()
        return answer

    def _back(self) -> None:
        if self._ready and self._away_since is not None:
            seconds, self._away_since = self._clock.monotonic() - self._away_since, None
            self._events.emit(StoreBack(seconds))

    async def _connected(self, *, unready: bool) -> Engines:
        if self._closed:
            raise StoreUnavailableError(f"The store on {self.description} is closed.")
        if not (self._ready or unready):
            raise StoreUnavailableError(f"{self.description} has not been reached yet.")
        async with self._making:
            if self._engines is None:
                # In a thread, because importing the driver takes a while.
                self._engines = await in_thread(partial(make_engines, self._url, self.dialect, self._pool_size))
        return self._engines

    def _translated(self, error: sa.exc.StatementError, *, committing: bool) -> Exception:
        reason = str(error.orig or error).strip().partition("\n")[0]
        match self.dialect.fault_of(error):
            case Fault.AWAY:
                return self._unavailable(reason, committing=committing)
            case Fault.CONFLICT:
                return _ConflictError(reason)
            case Fault.REFUSED:
                return StoreError(f"{self.description} refuses this: {mask_url(reason)}")

    def _unavailable(self, reason: str, *, committing: bool) -> StoreUnavailableError:
        message = f"{self.description}: {mask_url(reason)}"
        self.lost(message)
        return StoreUnknownError(message) if committing else StoreUnavailableError(message)


@dataclass(slots=True)
class _Progress:
    """How far a transaction has progressed."""

    committing: bool = False


async def _once(engine: AsyncEngine, work: Work[T], progress: _Progress) -> T:
    async with engine.connect() as connection:
        transaction = await connection.begin()
        answer = await work(connection)
        progress.committing = True
        await transaction.commit()
        return answer


class _ConflictError(Exception):
    """The transaction was rolled back because of another one; nothing was written."""
