"""Grants in groups: the jobs run, and their groups' rows name them, in one step.

A group's row is changed by every grant in it. So who has looked at a group and now finds its row unchanged knows that
nothing was granted there meanwhile, whether it held the lock or not: the version of the row is compared and set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.job import JobId
from jq_actors.turns import Member

from .dialect import Dialect, encode_rows
from .grants import grant
from .group_rows import GRAIN
from .group_views import Sight
from .tables import BIGINT, JOB_ID, Tables, UtcDateTime
from .workers import Workers


@dataclass(frozen=True, slots=True)
class GroupStart:
    """A job that is to run."""

    member: Member
    """As it was seen."""
    sight: Sight
    """Its group, as it was seen, and with all that is to run of it."""
    is_instead: bool
    """It is not the delivery's own job."""


@dataclass(frozen=True, slots=True)
class Granted:
    """One that runs."""

    job_id: JobId
    attempt: int
    crashes: int


class GroupGrants:
    """Writes them."""

    def __init__(self, tables: Tables, dialect: Dialect, workers: Workers) -> None:
        self._workers = workers
        self._together = _together(tables, dialect) if dialect.nests_writes else None
        self._grant, self._hold = _grant(tables, dialect), _hold(tables, dialect)

    async def write(
        self, connection: AsyncConnection, starts: Mapping[int, GroupStart], now: datetime
    ) -> dict[int, Granted]:
        """Let those run, by run token, that are what they were seen as, in groups whose rows are; returns those.

        The groups' locks are taken where they are not held, in the order of the names.
        """
        if not starts:
            return {}
        ordered = sorted(starts.items(), key=lambda item: item[1].sight.row.name)
        parameters = {"batch": encode_rows([_row(token, start) for token, start in ordered]), **self._times(now)}
        if self._together is not None:
            return _granted((await connection.execute(self._together, parameters)).all())
        granted = _granted((await connection.execute(self._grant, parameters)).all())
        rows = [_row(token, start) for token, start in ordered if token in granted]
        if rows:
            await connection.execute(self._hold, {"batch": encode_rows(rows), **self._times(now)})
        return granted

    def _times(self, now: datetime) -> dict[str, Any]:
        return {"me": self._workers.my_id, "now": now, "stale": now - GRAIN}


def _row(token: int, start: GroupStart) -> dict[str, Any]:
    member, sight = start.member, start.sight
    return {
        "id": member.job_id,
        "dispatch": member.dispatch,
        "state": member.state,
        "run_token": token,
        "name": sight.row.name,
        "version": sight.row.version,
        # More than run are no harm: one that does not run is not counted.
        "holders": tuple(sight.running),
        "next_position": sight.next_position,
    }


def _granted(rows: Sequence[sa.Row[Any]]) -> dict[int, Granted]:
    return {row.run_token: Granted(row.id, row.attempt, row.crashes) for row in rows}


def _batch(tables: Tables, dialect: Dialect) -> sa.FromClause:
    g, text = tables.groups.c, sa.Text()
    of_job: dict[str, sa.types.TypeEngine[Any]]
    of_job = {"id": JOB_ID, "dispatch": sa.Integer(), "state": text, "run_token": BIGINT}
    of_group = {"name": text, "version": text, "holders": g.holders.type, "next_position": g.next_position.type}
    return dialect.rows({**of_job, **of_group})


def _grant(tables: Tables, dialect: Dialect) -> sa.UpdateBase:
    return _granting(tables, _batch(tables, dialect))


def _granting(tables: Tables, rows: sa.FromClause, *also: sa.ColumnElement[bool]) -> sa.UpdateBase:
    c, b = tables.jobs.c, rows.c
    this = (c.id == b.id, c.dispatch == b.dispatch, c.state == b.state, c.group_key == b.name)
    return grant(tables, b.run_token, *this, *also, wake_at=None, parked_at=None)


def _hold(tables: Tables, dialect: Dialect) -> sa.Update:
    return _holding(tables, _batch(tables, dialect))


def _holding(tables: Tables, rows: sa.FromClause, *also: sa.ColumnElement[bool]) -> sa.Update:
    g, b = tables.groups.c, rows.c
    moved_at = sa.case(
        (g.moved_at < sa.bindparam("stale", type_=UtcDateTime), sa.bindparam("now", type_=UtcDateTime)),
        else_=g.moved_at,
    )
    values = {"holders": b.holders, "next_position": b.next_position, "moved_at": moved_at}
    return sa.update(tables.groups).where(g.name == b.name, *also).values(values)


def _together(tables: Tables, dialect: Dialect) -> sa.Select[Any]:
    groups = tables.groups
    given = _batch(tables, dialect)
    asked = sa.select(*given.c).cte("asked")
    locked = (
        sa.select(groups.c.name)
        .where(groups.c.name == asked.c.name, dialect.row_version(groups) == asked.c.version)
        .order_by(groups.c.name)
        .with_for_update(of=groups, key_share=True)
        .cte("locked")
    )
    # As an array, which is whole before the first job is touched: all groups are locked before all jobs.
    names = sa.func.array_cat(sa.select(sa.func.array_agg(locked.c.name)).scalar_subquery(), sa.null())
    granted = _granting(tables, asked, asked.c.name == sa.any_(names)).cte("granted")
    held = _holding(tables, asked, granted.c.run_token == asked.c.run_token).cte("held")
    return sa.select(granted.c.id, granted.c.run_token, granted.c.attempt, granted.c.crashes).add_cte(held)
