"""The journal: what jobs did, written by the jobs themselves, past everything that is tested.

A plain table. A run that has a start and no end is one that its process did not survive.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # has no types
import psycopg

from jq_actors import current_job

from .database import Lookout, plain

VARIABLE = "JQ_TEST_JOURNAL"
"""Environment variable of the workers: the URL of the journal's database."""

_TABLE = """
CREATE TABLE runs (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  job_id uuid NOT NULL, number int NOT NULL, pid int NOT NULL,
  started timestamptz NOT NULL DEFAULT clock_timestamp(), ended timestamptz, how text
);
CREATE INDEX ON runs (job_id)
"""
_START = "INSERT INTO runs (job_id, number, pid) VALUES ({}, {}, {}) RETURNING id"
_NOTE = "INSERT INTO runs (job_id, number, pid, ended, how) VALUES ({}, {}, {}, clock_timestamp(), 'returned')"
_END = "UPDATE runs SET ended = clock_timestamp(), how = {} WHERE id = {}"
_EARLIER = "SELECT count(*) FROM runs WHERE job_id = {} AND id < {}"


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a job, as the job itself wrote it."""

    job_id: str
    number: int
    pid: int
    started: datetime
    ended: datetime | None
    how: str | None
    """``returned``, or the class of the exception that came out."""


class Journal:
    """The journal as the tests read it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._lookout = Lookout(url)
        self._lookout.execute(_TABLE)

    def close(self) -> None:
        self._lookout.close()

    def now(self) -> datetime:
        """The time of its clock."""
        [(now,)] = self._lookout.rows("SELECT clock_timestamp()")
        return now  # type: ignore[no-any-return]  # a timestamptz

    def runs(self) -> list[Run]:
        """All runs, by their start."""
        found = self._lookout.rows(
            "SELECT job_id::text, number, pid, started, ended, how FROM runs ORDER BY started, id"
        )
        return [Run(*row) for row in found]

    def running(self) -> int:
        """How many runs have not ended."""
        [(count,)] = self._lookout.rows("SELECT count(*) FROM runs WHERE ended IS NULL")
        return int(count)

    def ended(self) -> int:
        """How many runs have ended."""
        [(count,)] = self._lookout.rows("SELECT count(*) FROM runs WHERE ended IS NOT NULL")
        return int(count)

    def jobs_that_ended(self, how: Sequence[str]) -> int:
        """How many jobs have a run that ended in one of these ways."""
        [(count,)] = self._lookout.rows("SELECT count(DISTINCT job_id) FROM runs WHERE how = ANY(%s)", list(how))
        return int(count)

    def by_job(self) -> dict[str, list[Run]]:
        """The runs of each job, by their start."""
        found: defaultdict[str, list[Run]] = defaultdict(list)
        for run in self.runs():
            found[run.job_id].append(run)
        return found


def overlaps(
    runs: Iterable[Run],
    deaths: Mapping[int, datetime] | None = None,
    of: Callable[[Run], Hashable] = lambda run: run.job_id,
) -> list[tuple[Run, Run]]:
    """Pairs of runs of one job of which the second began before the first was over.

    ``deaths``: when processes were killed; a run without an end ended then, and else never. ``of``: of what no two
    runs may overlap, if not of a job.
    """
    latest: dict[Hashable, Run] = {}
    found = []
    for run in sorted(runs, key=lambda run: run.started):
        before = latest.get(of(run))
        latest[of(run)] = run
        if before is None:
            continue
        ended = before.ended or (deaths or {}).get(before.pid)
        if ended is None or run.started < ended:
            found.append((before, run))
    return found


# -- in the workers -----------------------------------------------------------------------------------------


async def note_async(number: int) -> None:
    """Write a run that begins and ends now."""
    await (await _pool()).execute(_NOTE.format("$1", "$2", "$3"), *_about(number))


def note_sync(number: int) -> None:
    """Write the start of a run that will have no end."""
    _connection().execute(_START.format("%s", "%s", "%s"), _about(number))


@asynccontextmanager
async def written_async(number: int) -> AsyncIterator[int]:
    """Write start and end of what runs inside; gives the number of earlier runs of the job."""
    pool = await _pool()
    run = await pool.fetchval(_START.format("$1", "$2", "$3"), *_about(number))
    how = "returned"
    try:
        yield await pool.fetchval(_EARLIER.format("$1", "$2"), current_job().id, run)
    except BaseException as error:
        how = type(error).__name__
        raise
    finally:
        # A task of its own: the journal has to tell of a cancelled run as well.
        end = asyncio.ensure_future(pool.execute(_END.format("$1", "$2"), how, run))
        await asyncio.shield(end)


@contextmanager
def written_sync(number: int) -> Iterator[None]:
    """The same in a thread."""
    connection = _connection()
    [run] = connection.execute(_START.format("%s", "%s", "%s"), _about(number)).fetchone() or [None]
    how = "returned"
    try:
        yield
    except BaseException as error:
        how = type(error).__name__
        raise
    finally:
        connection.execute(_END.format("%s", "%s"), (how, run))


def _about(number: int) -> tuple[str, int, int]:
    return current_job().id, number, os.getpid()


_of_thread = threading.local()
_of_loop: dict[asyncio.AbstractEventLoop, asyncio.Task[Any]] = {}


def _connection() -> psycopg.Connection[Any]:
    if not hasattr(_of_thread, "connection"):
        _of_thread.connection = psycopg.connect(plain(os.environ[VARIABLE]), autocommit=True)
    connection: psycopg.Connection[Any] = _of_thread.connection
    return connection


async def _pool() -> Any:
    loop = asyncio.get_running_loop()
    if loop not in _of_loop:  # a task, so that all who come first wait for the same one
        _of_loop[loop] = loop.create_task(_open_pool())
    return await asyncio.shield(_of_loop[loop])


async def _open_pool() -> Any:
    return await asyncpg.create_pool(plain(os.environ[VARIABLE]), min_size=1, max_size=8)
