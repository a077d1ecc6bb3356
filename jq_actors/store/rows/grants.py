"""Grants: the statements that make a job run. Every claim is one."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from jq_actors.model.job import JobState
from jq_actors.store.database.dialect import NOW, Dialect
from jq_actors.store.tables import BIGINT, JOB_ID, Tables

from .workers import held_worker


def grant(
    tables: Tables,
    run_token: sa.ColumnElement[int],
    *where: sa.ColumnElement[bool],
    **also: Any,
) -> sa.UpdateBase:
    """The statement that lets rows run for the worker ``me`` from ``now`` on, if the worker's own row exists."""
    me = held_worker(tables).cte("me")
    values = running(tables, run_token, me.c.id) | also
    return sa.update(tables.jobs).where(*where).values(values).returning(*granted_columns(tables))


def running(tables: Tables, run_token: sa.ColumnElement[int], worker: sa.ColumnElement[str]) -> dict[str, Any]:
    """The values of a row that runs from ``now`` on."""
    return {
        "state": JobState.RUNNING.value,
        "run_token": run_token,
        "worker_id": worker,
        "attempt": tables.jobs.c.attempt + 1,
        "started_at": NOW,
        "publish_at": None,
        "reason": None,
    }


def granted_columns(tables: Tables) -> list[sa.ColumnElement[Any]]:
    """The columns that a grant returns of each row."""
    c = tables.jobs.c
    return [c.id, c.run_token, c.attempt, c.crashes, c.dispatch, c.queue, c.group_key]


def grant_of_queued(tables: Tables, dialect: Dialect) -> sa.UpdateBase:
    """The statement that grants a batch of queued dispatches."""
    c = tables.jobs.c
    b = dialect.rows({"id": JOB_ID, "dispatch": sa.Integer(), "run_token": BIGINT}).c
    this = (c.id == b.id, c.dispatch == b.dispatch, c.state == JobState.QUEUED.value)
    # A row that was marked before keeps its value, so that the update stays a HOT one.
    return grant(tables, b.run_token, *this, published_at=sa.func.coalesce(c.published_at, NOW))


def granted_before(tables: Tables, dialect: Dialect) -> sa.Select[Any]:
    """The rows that run for the worker ``me`` under the run tokens of a batch, whatever granted them."""
    c, b = tables.jobs.c, dialect.rows({"run_token": BIGINT}).c
    mine = (c.state == JobState.RUNNING.value, c.worker_id == sa.bindparam("me", type_=sa.Text))
    # By the index of unfinished rows: answers are rarely lost.
    return sa.select(*granted_columns(tables)).where(
        c.final_state.is_(None), *mine, c.run_token.in_(sa.select(b.run_token))
    )
