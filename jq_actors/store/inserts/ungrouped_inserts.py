"""New jobs without groups, in one statement that is a transaction of its own.

Each column travels as an array. Reading rows from JSON takes PostgreSQL half as long again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.errors import StoreError, StoreUnavailableError, StoreUnknownError
from jq_actors.model.job import JobState
from jq_actors.store.database.database import Database
from jq_actors.store.records import NewJob
from jq_actors.store.tables import Tables

from .admission_rules import is_scheduled
from .inserts import Inserted, Insertion, Inserts, dispatches_of, text_of

MOST_ROWS = 500
MOST_BYTES = 1 << 20
"""The most bytes of one statement: while it is encoded, the loop does nothing else."""
ROW_BYTES = 300
"""The approximate size of a job without its body, in bytes."""

Sent = tuple[NewJob, timedelta | None]
"""A job, and how long its producer has to publish it."""

_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_NO_TAGS = "[]"


def are_ungrouped(jobs: Sequence[NewJob]) -> bool:
    """Whether ``jobs`` can be inserted without reading anything first."""
    return all(job.group is None for job in jobs)


class UngroupedInserts:
    """Commits insertions of jobs without groups."""

    def __init__(self, database: Database, tables: Tables, inserts: Inserts) -> None:
        self._database, self._inserts = database, inserts
        self._statement = _insert(tables) if database.dialect.has_writable_ctes else None

    async def write(self, insertions: Sequence[Insertion], now: datetime) -> list[Inserted]:
        """Insert the jobs of ``insertions``, in their order; returns what became of each.

        Raises:
          StoreUnavailableError, StoreUnknownError: as `Database.write`.
          StoreError: one of them exists already, which is named; or the database cannot store one of their values.
        """
        if self._statement is None or not await self._write_plain(self._statement, insertions, now):
            return (await self._database.write(lambda c: self._inserts.insert(c, insertions, now))).each
        return [dispatches_of(insertion) for insertion in insertions]

    async def _write_plain(self, statement: sa.Insert, insertions: Sequence[Insertion], now: datetime) -> bool:
        """Whether they are committed. ``False``: the database refuses one of them, and its error does not say which."""
        first, *others = chunks(insertions)

        async def insert(connection: AsyncConnection) -> None:
            for chunk in (first, *others):
                await connection.execute(statement, arrays(chunk, now))

        try:
            if others:
                await self._database.write(insert)
            elif await self._database.autocommit("insert", statement, arrays(first, now)) is None:
                await self._find_or_insert(insertions, now)
        except StoreUnavailableError:
            raise
        except StoreError:
            return False
        return True

    async def _find_or_insert(self, insertions: Sequence[Insertion], now: datetime) -> None:
        """They may be committed, and only the answer lost: rows that already exist are theirs."""
        try:
            await self._database.write(lambda c: self._inserts.insert(c, insertions, now, may_be_committed=True))
        except StoreError as error:
            raise StoreUnknownError(f"The answer to a commit was lost, and then: {error}") from error


def chunks(insertions: Sequence[Insertion]) -> list[list[Sent]]:
    """The jobs of ``insertions`` in their order, in parts that are not too large; at least one part."""
    parts: list[list[Sent]] = [[]]
    size = 0
    for jobs, lease in insertions:
        for job in jobs:
            weight = ROW_BYTES + len(job.body)
            if parts[-1] and (len(parts[-1]) == MOST_ROWS or size + weight > MOST_BYTES):
                parts.append([])
                size = 0
            parts[-1].append((job, lease))
            size += weight
    return parts


def arrays(chunk: Sequence[Sent], now: datetime) -> dict[str, Any]:
    """The parameters of `unnested`: a column each."""
    micros = _Micros()
    scheduled = [is_scheduled(job) for job, _ in chunk]
    leases = [job.due_at if lease is None else now + lease for job, lease in chunk]
    return {
        "id": [job.id for job, _ in chunk],
        "actor": [job.actor for job, _ in chunk],
        "queue": [job.queue for job, _ in chunk],
        "priority": [job.priority for job, _ in chunk],
        "scheduled": scheduled,
        "due": [micros[job.due_at] for job, _ in chunk],
        "sent": [micros[job.enqueued_at] for job, _ in chunk],
        "publish": [micros[lease] for lease in leases],
        "tags": [json.dumps(job.tags) if job.tags else _NO_TAGS for job, _ in chunk],
        "body": [text_of(job.body) for job, _ in chunk],
    }


class _Micros(dict[datetime, int]):
    """Times as microseconds since 1970, because both drivers are slow with arrays of times. Most are the same.

    Times after the year 2255 may be some microseconds off.
    """

    def __missing__(self, moment: datetime) -> int:
        self[moment] = micros = (moment - _EPOCH) // _MICROSECOND
        return micros


COLUMNS: Mapping[str, sa.types.TypeEngine[Any]] = {
    "id": sa.Text(),
    "actor": sa.Text(),
    "queue": sa.Text(),
    "priority": sa.SmallInteger(),
    "scheduled": sa.Boolean(),
    "due": sa.BigInteger(),
    "sent": sa.BigInteger(),
    "publish": sa.BigInteger(),
    "tags": sa.Text(),
    "body": sa.Text(),
}


def _insert(tables: Tables) -> sa.Insert:
    """The insert into both tables, without ON CONFLICT: a job that exists refuses them all."""
    given = unnested(COLUMNS, "sent")
    g, c = given.c, tables.jobs.c
    due = time_of(g.due)
    values = row_values(tables, given) | {
        c.state: sa.case((g.scheduled, constant(JobState.SCHEDULED)), else_=constant(JobState.QUEUED)),
        c.wake_at: sa.case((g.scheduled, due)),
        c.publish_at: sa.case((~g.scheduled, time_of(g.publish))),
    }
    # `seq` is given in the order of the rows: that is the order in which they were sent.
    jobs = sa.insert(tables.jobs).from_select(
        [column.name for column in values], sa.select(*values.values()).order_by(g.n)
    )
    return payloads_of(tables, given).add_cte(jobs.cte("made"))


def unnested(columns: Mapping[str, sa.types.TypeEngine[Any]], name: str) -> sa.CTE:
    """Arrays, one a column (parameters of these names), as rows with their number ``n``."""
    given = [sa.bindparam(column, type_=sa.ARRAY(kind)) for column, kind in columns.items()]
    typed: Iterator[sa.ColumnClause[Any]] = (sa.column(column, kind) for column, kind in columns.items())
    rows = sa.func.unnest(*given).table_valued(*typed, with_ordinality="n", name=f"{name}_rows").render_derived()
    return sa.select(*rows.c).cte(name)


def row_values(tables: Tables, given: sa.CTE) -> dict[sa.ColumnElement[Any], Any]:
    """The columns of a new job's row, from the rows of `arrays`."""
    g, c = given.c, tables.jobs.c
    return {
        c.id: sa.cast(g.id, postgresql.UUID(as_uuid=False)),
        c.actor: g.actor,
        c.queue: g.queue,
        c.priority: g.priority,
        c.dispatch: constant(1),
        c.redispatches: constant(0),
        c.due_at: time_of(g.due),
        c.attempt: constant(0),
        c.crashes: constant(0),
        c.enqueued_at: time_of(g.sent),
        c.tags: sa.cast(g.tags, postgresql.JSONB),
    }


def payloads_of(tables: Tables, given: sa.CTE) -> sa.Insert:
    """The insert of the jobs' payloads."""
    job_id = sa.cast(given.c.id, postgresql.UUID(as_uuid=False))
    return sa.insert(tables.payloads).from_select(["job_id", "body"], sa.select(job_id, given.c.body))


def constant(value: int | JobState) -> sa.ColumnElement[Any]:
    """A constant in the statement itself, whose parameters are all arrays."""
    return sa.literal_column(str(value) if isinstance(value, int) else f"'{value.value}'")


def time_of(micros: sa.ColumnElement[int]) -> sa.ColumnElement[datetime]:
    """A time that travelled as microseconds."""
    return sa.literal_column("timestamptz 'epoch'", sa.TIMESTAMP(timezone=True)) + micros * sa.literal_column(
        "interval '1 microsecond'", sa.Interval()
    )
