"""The connection pool: transactions that no caller can tear, errors translated, each outage told once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import timedelta
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
from .lines import Line, NoAnswerError, make_line

T = TypeVar("T")
Work = Callable[[AsyncConnection], Awaitable[T]]
"""What to do in one transaction. It may be called again after a conflict: no effects but in the database."""

MAX_CONFLICTS = 20
"""How often a transaction that lost against others is repeated."""
ANSWER_TIMEOUT = 5.0
"""Seconds in which a database that is there answers."""


class Database:
    """One database, by a pool of connections; everything on one loop.

    Each transaction runs in a task of its own: a cancelled caller neither tears it nor leaves a connection
    checked out or dirty (A60).

    Raises (the constructor):
      ValueError: a URL that is not of a known kind.
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

    async def write(self, work: Work[T], *, unready: bool = False) -> T:
        """Commit ``work``, all or nothing. What makes the database ready may take its time: it has no deadline.

        Raises:
          StoreUnavailableError: the database cannot be reached; nothing is written.
          StoreUnknownError: it was lost while it committed; perhaps it is written.
          StoreError: it refuses these values.
        """
        return await self._in_own_task(self._write(work, None if unready else self.dialect.deadline, unready=unready))

    async def write_urgently(self, work: Work[T], deadline: float) -> T:
        """The same in ``deadline`` seconds, before what else waits to be written, and by a connection for this alone.

        So it works while long statements have all others. Raises as `write` does.
        """
        return await self._in_own_task(self._write(work, deadline, urgent=True))

    async def try_alone(self, kind: str, work: Callable[[Line], Awaitable[None]]) -> bool:
        """Do ``work``, each statement of which is a transaction of its own; whether all of them are committed.

        Statements of one ``kind`` wait for each other, and for no others.

        ``False``: the connection was lost, or another transaction was in the way. Some may be committed, whose answers
        are lost; nothing is repeated, and no loss is told: whoever calls does the rest, and finds what is done, by
        `write`. Only on databases that `Dialect.nests_writes` is true of.

        Raises:
          StoreUnknownError: it does not work; some may be committed.
          StoreError: it refuses these values. Those of the statements before are committed.
        """
        try:
            await work(await self._line(kind))
        except sa.exc.StatementError as error:
            is_lost = isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated
            if not is_lost and self.dialect.fault_of(error) is not Fault.CONFLICT:
                raise self._translated(error, committing=True) from error
            return False
        except (NoAnswerError, OSError, TimeoutError, sa.exc.TimeoutError):
            return False
        if self._ready:
            self._back()
        return True

    async def execute_alone(
        self, kind: str, statement: sa.Select[Any] | sa.UpdateBase, parameters: Mapping[str, Any]
    ) -> list[Any] | None:
        """Execute ``statement``, each time the same, that is a transaction of its own; returns its rows.

        ``None``: nobody knows whether it is committed, or another transaction was in the way. No loss is told then.
        Only on databases that `Dialect.nests_writes` is true of. In the caller's own task: one that is cancelled tears
        the connection down.

        Raises:
          StoreUnavailableError: the database cannot be reached; nothing is written.
          StoreError: it refuses these values.
        """
        line = await self._line(kind)
        try:
            rows = list(await line.execute(statement, parameters))
        except NoAnswerError:
            return None
        except sa.exc.StatementError as error:
            if self.dialect.fault_of(error) is Fault.CONFLICT:
                return None
            raise self._translated(error, committing=False) from error
        except (OSError, TimeoutError, sa.exc.TimeoutError) as error:
            raise self._unavailable(str(error) or "no answer", committing=False) from error
        if self._ready:
            self._back()
        return rows

    async def read(self, work: Work[T], *, unready: bool = False) -> T:
        """Do ``work``, which changes nothing. Raises as `write` does."""
        return await self._in_own_task(self._read(work, unready=unready))

    async def answers(self) -> bool:
        """Whether the database answers the smallest of questions; whether it can be written to is another matter."""
        try:
            await self._in_own_task(self._ask())
        except (StoreError, sa.exc.StatementError, OSError, TimeoutError, sa.exc.TimeoutError):
            return False
        return True

    async def measure(self, connection: AsyncConnection) -> timedelta:
        """How far the server's clock is ahead of this machine's; nothing, if less than this can tell.

        Else the measuring error of a busy moment would set the times of this worker's rows off against each other.
        """
        if self.dialect.server_time is None:
            return timedelta()
        query = sa.select(self.dialect.server_time)
        before = self._clock.wall()
        server = await connection.scalar(query) or before
        uncertain = (self._clock.wall() - before) / 2
        ahead = server - before - uncertain
        return ahead if abs(ahead) > uncertain else timedelta()

    def make_ready(self) -> None:
        """The tables are as this release wants them. Before, no work is done that is not ``unready``."""
        self._ready = True
        self._back()

    def lost(self, reason: str) -> None:
        """The database does not do its work; told once until it is back."""
        if self._away_since is None:
            self._away_since = self._clock.monotonic()
            self._events.emit(StoreLost(reason))

    async def close(self, timeout: float) -> None:
        """Let transactions end, for at most ``timeout`` seconds; then disconnect."""
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
            for engine in (self._engines.reader, self._engines.each_alone, self._engines.urgent):
                await engine.dispose()

    @property
    def checked_out(self) -> int:
        """Connections in use now."""
        engines = self._engines
        pools = [] if engines is None else [e.pool for e in (engines.reader, engines.each_alone, engines.urgent)]
        kept = sum(line.kept for line in self._lines.values())
        return sum(pool.checkedout() for pool in pools if isinstance(pool, sa.pool.QueuePool)) - kept

    # -- one transaction

    async def _line(self, kind: str) -> Line:
        engines = await self._connected(unready=False)
        line = self._lines.get(kind)
        if line is None:
            line = self._lines[kind] = make_line(engines.each_alone, self.dialect.deadline, self._clock)
        return line

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
                # Two that met once must not meet for ever.
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
                    # The connection may have died in the pool, of a restart of the server for example. The pool has
                    # dropped all that are as old: the next one is new, or there is no database.
                    answer = await _once(engine, work, progress)
        except sa.exc.StatementError as error:
            raise self._translated(error, committing=progress.committing) from error
        except (OSError, TimeoutError, sa.exc.TimeoutError) as error:
            reason = str(error) or f"no answer within {deadline} s"
            raise self._unavailable(reason, committing=progress.committing) from error
        if self._ready:
            self._back()
        return answer

    def _back(self) -> None:
        if self._away_since is not None:
            seconds, self._away_since = self._clock.monotonic() - self._away_since, None
            self._events.emit(StoreBack(seconds))

    async def _connected(self, *, unready: bool) -> Engines:
        if self._closed:
            raise StoreUnavailableError(f"The store on {self.description} is closed.")
        if not (self._ready or unready):
            raise StoreUnavailableError(f"{self.description} has not been reached yet.")
        async with self._making:
            if self._engines is None:
                # In a thread: it imports the driver, which takes a while.
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
    """How far a transaction came."""

    committing: bool = False


async def _once(engine: AsyncEngine, work: Work[T], progress: _Progress) -> T:
    async with engine.connect() as connection:
        transaction = await connection.begin()
        answer = await work(connection)
        progress.committing = True
        await transaction.commit()
        return answer


class _ConflictError(Exception):
    """Rolled back because of another transaction; nothing was written."""
