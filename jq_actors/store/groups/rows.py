"""Rows of groups. A transaction that changes which jobs of a group hold its places, or wait, locks the group's row.

Locks are taken in the order of the names, and before those of the groups' jobs, so that transactions never wait for
each other in a circle. A row that was lost is created again by the next transaction that needs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.model.group_rules import GroupRules
from jq_actors.model.job import JobState
from jq_actors.store.database.dialect import Dialect, encode_rows
from jq_actors.store.tables import Tables, UtcDateTime

GRAIN = timedelta(seconds=5)
"""``moved_at`` is updated only when it is older than this: it is indexed, and most writes should not touch an index."""

_NOW = sa.bindparam("now", type_=UtcDateTime)
_STALE = sa.bindparam("stale", type_=UtcDateTime)


@dataclass(slots=True)
class GroupPolicy:
    """The rules of groups, which the runtime sets before the store is opened (`JobStore.rules`)."""

    rules: GroupRules = field(default_factory=GroupRules)


@dataclass(frozen=True, slots=True)
class GroupRow:
    """The row of a group."""

    name: str
    paused: str | None = None
    """Why it is paused; ``None``: it is not."""
    next_position: int | None = None
    """The next number to get a place; ``None``: the group is not numbered."""
    held: int = 0
    """How many of its jobs hold a place."""
    waiting: int = 0
    """How many are waiting."""


class LockedGroups:
    """Groups whose rows this transaction has locked, with what it has done to their jobs so far."""

    def __init__(self, rows: Mapping[str, GroupRow]) -> None:
        self._rows = dict(rows)
        self._changed: set[str] = set()

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def __getitem__(self, name: str) -> GroupRow:
        return self._rows[name]

    @property
    def rows(self) -> Mapping[str, GroupRow]:
        """The names of all locked groups."""
        return self._rows

    @property
    def changed(self) -> list[GroupRow]:
        """The groups whose rows have to be written."""
        return [self._rows[name] for name in sorted(self._changed)]

    def add(self, name: str, *, held: int = 0, waiting: int = 0) -> None:
        """Count more jobs of the group that hold a place, or wait. With neither, the order of its jobs has changed."""
        row = self._rows[name]
        self.put(replace(row, held=row.held + held, waiting=row.waiting + waiting))

    def put(self, row: GroupRow) -> None:
        """Replace the row of the group."""
        self._rows[row.name] = row
        self._changed.add(row.name)


class GroupRows:
    """Reads, locks and writes rows of groups."""

    def __init__(self, tables: Tables, dialect: Dialect) -> None:
        groups = tables.groups
        g = groups.c
        given = dialect.rows({"name": sa.Text()})
        names = given.c
        columns = (g.name, g.paused_at, g.paused_reason, g.next_position, g.held, g.waiting)
        self._read = sa.select(*columns).where(g.name.in_(sa.select(names.name)))
        self._lock = self._read.order_by(g.name).with_for_update(key_share=True)
        self._make = (
            dialect.insert(groups)
            .from_select(["name", "moved_at", "held", "waiting"], _new_rows(tables, given))
            .on_conflict_do_nothing(index_elements=[g.name])
        )
        numbers = {column.name: column.type for column in (g.held, g.waiting, g.next_position)}
        b = dialect.rows({"name": sa.Text(), **numbers}).c
        values: dict[str, Any] = {name: b[name] for name in numbers}
        self._write = sa.update(groups).where(g.name == b.name).values({**values, **moved(groups)})

    async def read(self, connection: AsyncConnection, names: Iterable[str]) -> dict[str, GroupRow]:
        """The rows that exist for ``names``, without locking them."""
        return await self._rows(connection, self._read, names)

    async def lock(self, connection: AsyncConnection, names: Iterable[str], now: datetime) -> LockedGroups:
        """Lock the rows of all ``names`` until the transaction ends, and create those that are missing.

        Jobs of these groups that are read afterwards include what others have committed under the same locks.
        """
        wanted = set(names)
        if not wanted:
            return LockedGroups({})
        rows = await self._rows(connection, self._lock, wanted)
        while missing := wanted - rows.keys():
            await connection.execute(self._make, {"batch": _batch(missing), "now": now})
            # This lock is out of order, for a new name may come before a locked one. If another transaction creates it
            # at the same moment and waits for us, the server detects that, and one of the two is repeated.
            rows = await self._rows(connection, self._lock, wanted)
        return LockedGroups(rows)

    async def write(self, connection: AsyncConnection, groups: LockedGroups, now: datetime) -> None:
        """Write the rows that have changed."""
        batch = [
            {"name": row.name, "held": row.held, "waiting": row.waiting, "next_position": row.next_position}
            for row in groups.changed
        ]
        if batch:
            await connection.execute(self._write, {"batch": encode_rows(batch), **move_at(now)})

    async def _rows(
        self, connection: AsyncConnection, query: sa.Select[Any], names: Iterable[str]
    ) -> dict[str, GroupRow]:
        found = await connection.execute(query, {"batch": _batch(names)})
        return {row.name: _group_row(row) for row in found}


def moved(groups: sa.Table) -> dict[str, Any]:
    """What each write of a group's row changes besides; its parameters are those of `move_at`."""
    g = groups.c
    return {"version": g.version + 1, "moved_at": sa.case((g.moved_at < _STALE, _NOW), else_=g.moved_at)}


def move_at(now: datetime) -> dict[str, datetime]:
    """The parameters of `moved`."""
    return {"now": now, "stale": now - GRAIN}


def _new_rows(tables: Tables, names: sa.FromClause) -> sa.Select[Any]:
    """Create rows in the order of their names, so that two transactions that create the same ones wait in line.

    A new group has no jobs. But if its row was lost, the new row must count the jobs that hold places, or wait.
    """
    c, name = tables.jobs.c, names.c.name

    def count(which: sa.ColumnElement[bool]) -> sa.ScalarSelect[int]:
        of_group = (c.group_key == name, c.final_state.is_(None), which)
        return sa.select(sa.func.count()).select_from(tables.jobs).where(*of_group).correlate(names).scalar_subquery()

    new = sa.select(name, _NOW, count(c.has_place), count(c.state == JobState.WAITING.value))
    return new.where(sa.true()).order_by(name)


def _group_row(row: sa.Row[Any]) -> GroupRow:
    paused = None if row.paused_at is None else row.paused_reason or "paused"
    return GroupRow(row.name, paused, row.next_position, row.held, row.waiting)


def _batch(names: Iterable[str]) -> str:
    return encode_rows([{"name": name} for name in set(names)])
