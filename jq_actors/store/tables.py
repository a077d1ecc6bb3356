"""The tables, as SQLAlchemy Core knows them. ``migrations/`` makes them; a test compares the two."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

REVISION = "0003"
"""The newest revision of ``migrations/``; a test compares the two. It is here so that `open` needs no Alembic."""

NO_PLACE = 2**62
"""The ``order_key`` of a scheduled job of a group that is not numbered: it gets its place when it is due."""

MAX_TABLE_NAME = 40
"""PostgreSQL cuts identifiers at 63 characters; the longest of our suffixes must still fit."""

MAX_REASON = 500
"""Characters of the reason in the hot row."""
MAX_ERROR = 4_000
"""Characters of the error in an attempt and in the payload."""


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """An aware time in UTC: ``timestamptz`` on PostgreSQL, else ISO text of one width, which sorts as time does."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        """The type of the dialect."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(sa.TIMESTAMP(timezone=True))
        return dialect.type_descriptor(sa.Text())

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | str | None:
        """A time as the driver takes it."""
        return value if value is None or dialect.name == "postgresql" else iso_utc(value)

    def process_result_value(self, value: datetime | str | None, dialect: sa.Dialect) -> datetime | None:
        """A time as the driver gives it, in UTC."""
        if value is None:
            return None
        # psycopg answers in the session's time zone.
        return (datetime.fromisoformat(value) if isinstance(value, str) else value).astimezone(UTC)


def iso_utc(moment: datetime) -> str:
    """``moment`` as text that PostgreSQL reads as a timestamp and that sorts as time does."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def storable(text: str, length: int) -> str:
    """At most ``length`` characters of ``text``, without the NULs and half surrogate pairs that databases refuse."""
    return text[:length].replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()


JOB_ID = sa.Text().with_variant(postgresql.UUID(as_uuid=False), "postgresql")
BIGINT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""SQLite numbers rows by itself only in a column that is exactly INTEGER; it holds 64 bits all the same."""
JSON_VALUE = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of one installation."""

    metadata: sa.MetaData
    jobs: sa.Table
    payloads: sa.Table
    attempts: sa.Table
    groups: sa.Table
    workers: sa.Table


def tables_for(jobs_table: str) -> Tables:
    """The tables whose names begin with ``jobs_table``.

    Raises:
      ValueError: it is not a lower-case identifier of at most ``MAX_TABLE_NAME`` characters.
    """
    if not re.fullmatch(r"[a-z_][a-z0-9_]*", jobs_table) or len(jobs_table) > MAX_TABLE_NAME:
        raise ValueError(
            f"jobs_table {jobs_table!r}: expected a lower-case identifier of at most {MAX_TABLE_NAME} letters"
        )
    metadata = sa.MetaData()
    return Tables(
        metadata,
        jobs=_jobs(jobs_table, metadata),
        payloads=_payloads(jobs_table, metadata),
        attempts=_attempts(jobs_table, metadata),
        groups=_groups(jobs_table, metadata),
        workers=_workers(jobs_table, metadata),
    )


_STORAGE = {
    # A claim is a HOT update, which needs room on the row's own page.
    "fillfactor": 50,
    # A queue fills and drains within minutes: with old statistics the planner would take a backlog of a million for
    # a handful of rows, or the reverse. By default 10 and 20 % of all rows have to change first.
    "autovacuum_analyze_scale_factor": 0.01,
    "autovacuum_vacuum_scale_factor": 0.02,
}


def _jobs(name: str, metadata: sa.MetaData) -> sa.Table:
    jobs = sa.Table(
        name,
        metadata,
        sa.Column("seq", BIGINT, sa.Identity(), primary_key=True),
        sa.Column("id", JOB_ID, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("queue", sa.Text, nullable=False),
        sa.Column("group_key", sa.Text),
        sa.Column("position", BIGINT),
        sa.Column("priority", sa.SmallInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        # Equal to `state` once that is final, else NULL: what indexes name instead of it (see below).
        sa.Column("final_state", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("dispatch", sa.Integer, nullable=False),
        sa.Column("published_at", UtcDateTime),
        # From when on a relay may publish this queued row; NULL: the broker has it, or it is not queued.
        sa.Column("publish_at", UtcDateTime),
        # The worker in whose memory the published command lies (embedded transport only).
        sa.Column("lane_owner", sa.Text),
        sa.Column("redispatches", sa.Integer, nullable=False),
        sa.Column("due_at", UtcDateTime, nullable=False),
        # While it is scheduled or retrying: when a relay makes the row queued. Else NULL.
        sa.Column("wake_at", UtcDateTime),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("crashes", sa.Integer, nullable=False),
        sa.Column("run_token", BIGINT),
        sa.Column("worker_id", sa.Text),
        sa.Column("enqueued_at", UtcDateTime, nullable=False),
        sa.Column("started_at", UtcDateTime),
        sa.Column("finished_at", UtcDateTime),
        sa.Column("tags", JSON_VALUE, nullable=False),
        # Its place in the order of its group, instead of `seq`: its position, what a move or its due time made it,
        # or NO_PLACE.
        sa.Column("order_key", BIGINT),
        # Since when it is waiting; NULL: it is not.
        sa.Column("parked_at", UtcDateTime),
        # Whether it holds one of its group's places: then it is counted in `held` of the group's row.
        sa.Column("has_place", sa.Boolean, nullable=False, server_default=sa.false()),
        postgresql_with=_STORAGE,
        # Without it SQLite gives the number of a pruned newest row again, and a cursor would skip rows.
        sqlite_autoincrement=True,
    )
    _index_jobs(jobs)
    return jobs


def _index_jobs(jobs: sa.Table) -> None:
    # No index may name a column that a claim changes (state, attempt, run_token, worker_id, started_at), not even
    # in its condition: on PostgreSQL that would end HOT updates, and each claim would write to every index (A58).
    # A final settlement writes to them all once; that is the price of finding one failed job among millions.
    c = jobs.c
    unfinished, final = c.final_state.is_(None), c.final_state.is_not(None)
    _index(jobs, "id", c.id, unique=True)

    # The relay's queries. Each of these indexes holds only the rows that its query is about.
    _index(jobs, "wake", c.wake_at, where=c.wake_at.is_not(None))
    _index(jobs, "publish", c.publish_at, c.seq, where=c.publish_at.is_not(None))
    _index(jobs, "publish_queue", c.queue, c.publish_at, c.seq, where=c.publish_at.is_not(None))
    _index(jobs, "published", c.queue, c.published_at, where=unfinished & c.published_at.is_not(None))
    _index(jobs, "lane", c.lane_owner, where=c.lane_owner.is_not(None))
    _index(jobs, "expiry", c.final_state, c.finished_at, where=final)

    # `find`: newest first, by one field; further fields are filtered on the way. Tags alone have no index.
    _index(jobs, "unfinished", c.seq, where=unfinished)
    _index(jobs, "final", c.final_state, c.seq, where=final)
    _index(jobs, "actor", c.actor, c.seq)
    _index(jobs, "queue", c.queue, c.seq)
    _index(jobs, "group", c.group_key, c.seq, where=c.group_key.is_not(None))

    # Groups: their unfinished jobs in order, and the positions that are taken. Waiting jobs have no index of their
    # own: they begin right behind the few that hold places, and so a release stays a HOT update.
    grouped = c.group_key.is_not(None)
    _index(jobs, "turn", c.group_key, group_order(jobs), where=grouped & unfinished)
    _index(jobs, "position", c.group_key, c.position, unique=True, where=c.position.is_not(None))


def group_order(jobs: sa.FromClause) -> sa.ColumnElement[int]:
    """What orders the jobs of a group."""
    return sa.func.coalesce(jobs.c.order_key, jobs.c.seq)


def _index(
    table: sa.Table,
    suffix: str,
    *columns: sa.ColumnElement[Any],
    unique: bool = False,
    where: sa.ColumnElement[bool] | None = None,
) -> None:
    sa.Index(f"{table.name}_{suffix}", *columns, unique=unique, postgresql_where=where, sqlite_where=where)


def _payloads(name: str, metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        f"{name}_payloads",
        metadata,
        sa.Column("job_id", JOB_ID, primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("result", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("traceback", sa.Text),
    )


def _attempts(name: str, metadata: sa.MetaData) -> sa.Table:
    # The token, not the number, tells runs apart: a snoozed or interrupted run passes its number on to the next run.
    return sa.Table(
        f"{name}_attempts",
        metadata,
        sa.Column("job_id", JOB_ID, primary_key=True),
        sa.Column("run_token", BIGINT, primary_key=True, autoincrement=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("worker_id", sa.Text, nullable=False),
        sa.Column("started_at", UtcDateTime, nullable=False),
        sa.Column("finished_at", UtcDateTime, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("error", sa.Text),
    )


def _groups(name: str, metadata: sa.MetaData) -> sa.Table:
    groups = sa.Table(
        f"{name}_groups",
        metadata,
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("paused_at", UtcDateTime),
        sa.Column("paused_reason", sa.Text),
        # In a numbered group: the next position to get a place. NULL: not numbered. It outlives the group's jobs.
        sa.Column("next_position", BIGINT),
        # How many of its jobs hold a place, and how many wait. They are counted here, because only what is in the row
        # itself is as new as the lock on it (`chained_settles`).
        sa.Column("held", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("waiting", sa.Integer, nullable=False, server_default=sa.text("0")),
        # How many jobs of the last insertion got a place: RETURNING does not see the row as it was before.
        sa.Column("admitted", sa.Integer, nullable=False, server_default=sa.text("0")),
        # Grows with each write that changes which jobs wait, or their order.
        sa.Column("version", BIGINT, nullable=False, server_default=sa.text("0")),
        # When a job of it was admitted or released, or it was looked at; to some seconds.
        sa.Column("moved_at", UtcDateTime, nullable=False),
        postgresql_with=_STORAGE,
    )
    _index(groups, "moved", groups.c.moved_at)
    return groups


def _workers(name: str, metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        f"{name}_workers",
        metadata,
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("process_started", sa.Double, nullable=False),
        sa.Column("lease_until", UtcDateTime, nullable=False),
        sa.Column("heartbeat_at", UtcDateTime, nullable=False),
        sa.Column("queues", JSON_VALUE, nullable=False),
        sa.Column("held", JSON_VALUE, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        # Every heartbeat updates the row: keep its versions on one page.
        postgresql_with={"fillfactor": 50},
    )
