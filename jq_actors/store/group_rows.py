"""Rows of groups. Whoever decides what a group starts, releases or takes in holds the lock of its row meanwhile.

Locks are taken in the order of the names, and before those of the group's jobs: so two that need several groups do
not wait for each other. A lost row is made again by whoever needs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.groups import GroupRules
from jq_actors.job import JobId

from .dialect import Dialect, encode_rows
from .tables import Tables, UtcDateTime

GRAIN = timedelta(seconds=5)
"""``moved_at`` is written anew only when it is older: an index holds it, and a claim should not write to one."""

_NOW = sa.bindparam("now", type_=UtcDateTime)


@dataclass(slots=True)
class GroupPolicy:
    """What the runtime says of groups before the store is opened (`JobStore.rules`, `JobStore.group_window`)."""

    rules: GroupRules = field(default_factory=GroupRules)
    window: int | None = None


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A group, as its row says."""

    name: str
    paused: str | None
    """Why it is paused; ``None``: it is not."""
    next_position: int | None
    """Numbered: the first number that has not had its turn. ``None``: not numbered."""
    holders: tuple[JobId, ...]
    """Granted, and perhaps still running."""
    version: str = ""
    """See `Dialect.row_version`."""


class GroupRows:
    """Makes, locks and changes them."""

    def __init__(self, tables: Tables, dialect: Dialect) -> None:
        groups = tables.groups
        g = groups.c
        names = dialect.rows({"name": sa.Text()}).c
        self._read = sa.select(*group_columns(groups, dialect)).where(g.name.in_(sa.select(names.name)))
        self._lock = self._read.order_by(g.name).with_for_update(key_share=True)
        self._make = (
            dialect.insert(groups)
            # In order: two that make the same groups wait for each other.
            .from_select(["name", "moved_at"], sa.select(names.name, _NOW).where(sa.true()).order_by(names.name))
            .on_conflict_do_nothing(index_elements=[g.name])
        )
        self._touch = sa.update(groups).where(g.name == names.name).values(moved_at=g.moved_at)
        b = dialect.rows({"name": sa.Text(), "holders": g.holders.type, "next_position": g.next_position.type}).c
        self._write = (
            sa.update(groups)
            .where(g.name == b.name)
            .values(
                holders=b.holders,
                next_position=b.next_position,
                moved_at=sa.case((g.moved_at < sa.bindparam("stale", type_=UtcDateTime), _NOW), else_=g.moved_at),
            )
        )

    async def read(self, connection: AsyncConnection, names: Iterable[str]) -> dict[str, GroupRow]:
        """Those of ``names`` that have a row, without a lock."""
        return await self._rows(connection, self._read, names)

    async def make(self, connection: AsyncConnection, names: Iterable[str], now: datetime) -> None:
        """Make the rows of those that have none."""
        await connection.execute(self._make, {"batch": _batch(names), "now": now})

    async def lock(self, connection: AsyncConnection, names: Iterable[str], now: datetime) -> dict[str, GroupRow]:
        """The rows of all ``names``, which nobody else can lock until the transaction ends.

        What is read of the groups' jobs after it is not older than what others have committed under their locks.
        """
        wanted = set(names)
        rows = await self._rows(connection, self._lock, wanted)
        missing = wanted - rows.keys()
        if missing:
            await self.make(connection, missing, now)
            rows |= await self._rows(connection, self._lock, missing)
        return rows

    async def write(self, connection: AsyncConnection, rows: Iterable[GroupRow], now: datetime) -> None:
        """Write what moved, under the lock: ``holders`` and ``next_position``."""
        batch = [{"name": row.name, "holders": row.holders, "next_position": row.next_position} for row in rows]
        if batch:
            parameters = {"batch": encode_rows(batch), "now": now, "stale": now - GRAIN}
            await connection.execute(self._write, parameters)

    async def touch(self, connection: AsyncConnection, names: Iterable[str]) -> None:
        """Give the rows, which are locked, new versions: jobs of these groups are not what they were.

        For whoever changes of a group what neither its row nor the job that is granted tells (`GroupGrants`).
        """
        await connection.execute(self._touch, {"batch": _batch(names)})

    async def _rows(
        self, connection: AsyncConnection, query: sa.Select[Any], names: Iterable[str]
    ) -> dict[str, GroupRow]:
        found = await connection.execute(query, {"batch": _batch(names)})
        return {row.name: group_row(row, row.holders) for row in found}


def group_columns(groups: sa.Table, dialect: Dialect) -> list[sa.ColumnElement[Any]]:
    """What `group_row` reads."""
    c = groups.c
    return [
        c.name,
        c.paused_at,
        c.paused_reason,
        c.next_position,
        c.holders,
        dialect.row_version(groups).label("version"),
    ]


def group_row(row: sa.Row[Any], holders: Sequence[JobId]) -> GroupRow:
    """What a row of the query says."""
    paused = None if row.paused_at is None else row.paused_reason or "paused"
    return GroupRow(row.name, paused, row.next_position, tuple(holders), row.version)


def _batch(names: Iterable[str]) -> str:
    return encode_rows([{"name": name} for name in set(names)])
