"""Rows of groups. Whoever changes which jobs of a group hold its places, or wait, holds the lock of its row meanwhile.

Locks are taken in the order of the names, and before those of the groups' jobs: so nobody waits for another one in a
circle. A lost row is made again by whoever needs it.
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
"""``moved_at`` is written anew only when it is older: an index holds it, and most writes should not touch one."""

_NOW = sa.bindparam("now", type_=UtcDateTime)
_STALE = sa.bindparam("stale", type_=UtcDateTime)


@dataclass(slots=True)
class GroupPolicy:
    """What the runtime says of groups before the store is opened (`JobStore.rules`)."""

    rules: GroupRules = field(default_factory=GroupRules)


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A group, as its row says."""

    name: str
    paused: str | None = None
    """Why it is paused; ``None``: it is not."""
    next_position: int | None = None
    """Numbered: the next number to get a place. ``None``: not numbered."""
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
        """All of them."""
        return self._rows

    @property
    def changed(self) -> list[GroupRow]:
        """Those that have to be written."""
        return [self._rows[name] for name in sorted(self._changed)]

    def add(self, name: str, *, held: int = 0, waiting: int = 0) -> None:
        """So many more jobs of the group hold a place, or wait. With neither, the order of its jobs has changed."""
        row = self._rows[name]
        self.put(replace(row, held=row.held + held, waiting=row.waiting + waiting))

    def put(self, row: GroupRow) -> None:
        """The row is so now."""
        self._rows[row.name] = row
        self._changed.add(row.name)


class GroupRows:
    """Reads, locks and writes them."""

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
        """Those of ``names`` that have a row, without a lock."""
        return await self._rows(connection, self._read, names)

    async def lock(self, connection: AsyncConnection, names: Iterable[str], now: datetime) -> LockedGroups:
        """The rows of all ``names``, which nobody else can lock until the transaction ends; made where missing.

        What is read of the groups' jobs after it is not older than what others have committed under their locks.
        """
        wanted = set(names)
        if not wanted:
            return LockedGroups({})
        rows = await self._rows(connection, self._lock, wanted)
        while missing := wanted - rows.keys():
            await connection.execute(self._make, {"batch": _batch(missing), "now": now})
            # Out of order, for a new name may come before one that is locked: should another transaction make it just
            # now and wait for us, the server finds that, and one of the two is repeated.
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
    """In the order of their names, so that two that make the same ones wait for each other.

    A new group has no jobs; but a row may have been lost, and then it must know of those that hold places, or wait.
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
