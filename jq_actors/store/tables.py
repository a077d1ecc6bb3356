"""The tables as SQLAlchemy Core objects. ``migrations/`` creates them, and a test compares the two."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

REVISION = "0003"
"""The newest revision in ``migrations/``; a test compares the two. It is here so that `open` does not need Alembic."""

NO_PLACE = 2**62
"""The ``order_key`` of a scheduled job in a group without numbers. The job gets its place when it is due."""

MAX_TABLE_NAME = 40
"""PostgreSQL truncates identifiers to 63 characters, and the longest of our suffixes must still fit."""

MAX_REASON = 500
"""Characters of the reason that the hot row keeps."""
MAX_ERROR = 4_000
"""Characters of the error that an attempt and the payload keep."""


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """An aware UTC time: ``timestamptz`` on PostgreSQL, otherwise ISO text of fixed width, which sorts by time."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        """Return the column type for the dialect."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(sa.TIMESTAMP(timezone=True))
        return dialect.type_descriptor(sa.Text())

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | str | None:
        """Convert a time to the form that the driver accepts."""
        return value if value is None or dialect.name == "postgresql" else iso_utc(value)

    def process_result_value(self, value: datetime | str | None, dialect: sa.Dialect) -> datetime | None:
        """Convert a time from the driver to UTC."""
        if value is None:
            return None
        # psycopg returns times in the session's time zone.
        return (datetime.fromisoformat(value) if isinstance(value, str) else value).astimezone(UTC)


def iso_utc(moment: datetime) -> str:
    """Return ``moment`` as text that PostgreSQL reads as a timestamp and that sorts by time."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def storable(text: str, length: int) -> str:
    """Return up to ``length`` characters of ``text``, escaping the NULs and lone surrogates that databases refuse."""
    return text[:length].replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()


JOB_ID = sa.Text().with_variant(postgresql.UUID(as_uuid=False), "postgresql")
BIGINT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""SQLite numbers rows automatically only if the column's type is exactly INTEGER, which still holds 64 bits."""
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
    """Return the tables whose names begin with ``jobs_table``.

    Raises:
      ValueError: ``jobs_table`` is not a lower-case identifier of at most ``MAX_TABLE_NAME`` characters.
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
    # A claim is a HOT update, which needs free space on the row's page.
    "fillfactor": 50,
    # A queue fills and drains within minutes. With old statistics, the planner would mistake a backlog of a million
    # rows for a handful, or the reverse. The defaults wait until 10 and 20 % of all rows have changed.
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
        # Equal to `state` once that is final, otherwise NULL. Indexes name this column instead of `state` (see below).
        sa.Column("final_state", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("dispatch", sa.Integer, nullable=False),
        sa.Column("published_at", UtcDateTime),
        # When a relay may publish this queued row, at the earliest. NULL: the broker has it, or it is not queued.
        sa.Column("publish_at", UtcDateTime),
        # The worker that holds the published command in its memory (embedded transport only).
        sa.Column("lane_owner", sa.Text),
        sa.Column("redispatches", sa.Integer, nullable=False),
        sa.Column("due_at", UtcDateTime, nullable=False),
        # When a relay makes a scheduled or retrying row queued; NULL in other states.
        sa.Column("wake_at", UtcDateTime),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("crashes", sa.Integer, nullable=False),
        sa.Column("run_token", BIGINT),
        sa.Column("worker_id", sa.Text),
        sa.Column("enqueued_at", UtcDateTime, nullable=False),
        sa.Column("started_at", UtcDateTime),
        sa.Column("finished_at", UtcDateTime),
        sa.Column("tags", JSON_VALUE, nullable=False),
        # Its place in the order of its group, if that is not `seq`: its position, a value set by a move or when it
        # became due, or NO_PLACE.
        sa.Column("order_key", BIGINT),
        # When it began to wait; NULL: it is not waiting.
        sa.Column("parked_at", UtcDateTime),
        # Whether it holds one of its group's places and is therefore counted in `held` in the group's row.
        sa.Column("has_place", sa.Boolean, nullable=False, server_default=sa.false()),
        postgresql_with=_STORAGE,
        # Without it, SQLite reuses the number of the newest row after that is pruned, and a cursor would skip rows.
        sqlite_autoincrement=True,
    )
    _index_jobs(jobs)
    return jobs


def _index_jobs(jobs: sa.Table) -> None:
    # No index may name a column that a claim changes (state, attempt, run_token, worker_id, started_at), not even
    # in its condition. On PostgreSQL that would rule out HOT updates, and each claim would write to every index (A58).
    # A final settlement writes to all of them once. That is the price of finding one failed job among millions.
    c = jobs.c
    unfinished, final = c.final_state.is_(None), c.final_state.is_not(None)
    _index(jobs, "id", c.id, unique=True)

    # For the relay's queries. Each of these indexes holds only the rows that its query selects.
    _index(jobs, "wake", c.wake_at, where=c.wake_at.is_not(None))
    _index(jobs, "publish", c.publish_at, c.seq, where=c.publish_at.is_not(None))
    _index(jobs, "publish_queue", c.queue, c.publish_at, c.seq, where=c.publish_at.is_not(None))
    _index(jobs, "published", c.queue, c.published_at, where=unfinished & c.published_at.is_not(None))
    _index(jobs, "lane", c.lane_owner, where=c.lane_owner.is_not(None))
    _index(jobs, "expiry", c.final_state, c.finished_at, where=final)

    # For `find`: newest first, by one field. The scan filters by the other fields. There is no index for tags.
    _index(jobs, "unfinished", c.seq, where=unfinished)
    _index(jobs, "final", c.final_state, c.seq, where=final)
    _index(jobs, "actor", c.actor, c.seq)
    _index(jobs, "queue", c.queue, c.seq)
    _index(jobs, "group", c.group_key, c.seq, where=c.group_key.is_not(None))

    # For groups: their unfinished jobs in order, and the positions in use. Waiting jobs do not have an index of their
    # own, because they come right after the few that hold places. Therefore a release is still a HOT update.
    grouped = c.group_key.is_not(None)
    _index(jobs, "turn", c.group_key, group_order(jobs), where=grouped & unfinished)
    _index(jobs, "position", c.group_key, c.position, unique=True, where=c.position.is_not(None))


def group_order(jobs: sa.FromClause) -> sa.ColumnElement[int]:
    """Return the expression by which the jobs of a group are ordered."""
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
    # The token, not the number, distinguishes runs: after a snoozed or interrupted run, the next one has its number.
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
        # The next position to get a place in a numbered group; NULL: not numbered. It is kept even when the group's
        # jobs are gone.
        sa.Column("next_position", BIGINT),
        # How many of its jobs hold a place, and how many wait. The counts are in this row because a statement that
        # has locked the row sees current values only there (`chained_settles`).
        sa.Column("held", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("waiting", sa.Integer, nullable=False, server_default=sa.text("0")),
        # How many jobs of the last insertion got a place. Stored because RETURNING cannot see the row's old version.
        sa.Column("admitted", sa.Integer, nullable=False, server_default=sa.text("0")),
        # Incremented by each write that changes which jobs wait, or their order.
        sa.Column("version", BIGINT, nullable=False, server_default=sa.text("0")),
        # When a job was last admitted or released, or the group was last checked; accurate to a few seconds.
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
        # Every heartbeat updates the row. The free space keeps its versions on one page.
        postgresql_with={"fillfactor": 50},
    )
