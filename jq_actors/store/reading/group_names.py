"""Names of groups in the database's own order, read from one to the next by an index, however many jobs each has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from jq_actors.store.tables import Tables

Wanted = Callable[[sa.FromClause], sa.ColumnElement[bool]]
"""Which jobs count, of a table of jobs: the condition of a partial index that begins with ``group_key``."""


def names_behind(tables: Tables, wanted: Wanted) -> sa.Select[Any]:
    """The first ``limit`` groups after ``after`` that have such jobs."""
    name = _next(tables, wanted, sa.bindparam("after", type_=sa.Text))
    names = sa.select(name.label("name")).cte("names", recursive=True)
    names = names.union_all(
        sa.select(_next(tables, wanted, names.c.name)).where(names.c.name.is_not(None)),
    )
    return sa.select(names.c.name).where(names.c.name.is_not(None)).limit(sa.bindparam("limit", type_=sa.Integer))


def _next(tables: Tables, wanted: Wanted, name: sa.ColumnElement[Any]) -> sa.ScalarSelect[Any]:
    job = tables.jobs.alias()
    return sa.select(sa.func.min(job.c.group_key)).where(job.c.group_key > name, wanted(job)).scalar_subquery()
