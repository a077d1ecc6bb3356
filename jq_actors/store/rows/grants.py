"""What makes a job run: the statement of every claim."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from jq_actors.model.job import JobState
from jq_actors.store.database.dialect import Dialect
from jq_actors.store.tables import BIGINT, JOB_ID, Tables, UtcDateTime

from .workers import held_worker


def grant(
    tables: Tables,
    run_token: sa.ColumnElement[int],
    *where: sa.ColumnElement[bool],
    **also: Any,
) -> sa.UpdateBase:
    """The statement that makes rows running for the worker ``me`` at ``now``, if its own row is there."""
    me = held_worker(tables).cte("me")
    values = running(tables, run_token, me.c.id) | also
    return sa.update(tables.jobs).where(*where).values(values).returning(*granted_columns(tables))


def running(tables: Tables, run_token: sa.ColumnElement[int], worker: sa.ColumnElement[str]) -> dict[str, Any]:
    """What makes a row one that runs, from ``now``."""
    c, now = tables.jobs.c, sa.bindparam("now", type_=UtcDateTime)
    return {
        "state": JobState.RUNNING.value,
        "run_token": run_token,
        "worker_id": worker,
        "attempt": c.attempt + 1,
        "started_at": now,
        "publish_at": None,
        "reason": None,
    }


def granted_columns(tables: Tables) -> list[sa.ColumnElement[Any]]:
    """What is told of a row that runs now."""
    c = tables.jobs.c
    return [c.id, c.run_token, c.attempt, c.crashes, c.dispatch, c.queue, c.group_key]


def grant_of_queued(tables: Tables, dialect: Dialect) -> sa.UpdateBase:
    """The claims of a batch: of dispatches that are queued."""
    c = tables.jobs.c
    b = dialect.rows({"id": JOB_ID, "dispatch": sa.Integer(), "run_token": BIGINT}).c
    this = (c.id == b.id, c.dispatch == b.dispatch, c.state == JobState.QUEUED.value)
    now = sa.bindparam("now", type_=UtcDateTime)
    # Unchanged where it was marked before, so that the update stays a HOT one.
    return grant(tables, b.run_token, *this, published_at=sa.func.coalesce(c.published_at, now))
