"""New jobs of groups: counted, numbered and admitted, in the transaction that inserts them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.errors import NotStoredError
from jq_actors.job import JobId, JobState

from .dialect import Dialect, encode_rows
from .group_room import GroupRoom
from .group_rows import GroupPolicy, GroupRow, GroupRows
from .records import NewJob
from .tables import BIGINT, NO_PLACE, Tables, group_order

Wanted = Mapping[str, Sequence[NewJob]]
"""The new jobs of each group."""


@dataclass(slots=True)
class Admission:
    """What becomes of the jobs of several insertions."""

    refused: dict[int, NotStoredError] = field(default_factory=dict)
    """By the index of the insertion: nothing of it is stored."""
    waiting: dict[JobId, str] = field(default_factory=dict)
    """Those that wait from the start, and why."""


class GroupIntake:
    """Admits new jobs to their groups. A group in which nothing has to be counted is not locked for it."""

    def __init__(self, tables: Tables, dialect: Dialect, rows: GroupRows, policy: GroupPolicy) -> None:
        self._rows, self._policy = rows, policy
        c, name = tables.jobs.c, sa.bindparam("name", type_=sa.Text)
        positions = dialect.rows({"position": BIGINT}).c.position
        self._used = sa.select(c.position).where(c.group_key == name, c.position.in_(sa.select(positions)))
        self._has_plain = sa.select(sa.exists().where(c.group_key == name, c.position.is_(None)))
        idle = (JobState.RUNNING.value, JobState.SCHEDULED.value)
        self._waiting = _counted(tables, dialect, c.state.not_in(idle))
        self._unfinished = _counted(tables, dialect, group_order(tables.jobs) < NO_PLACE)

    async def admit(
        self,
        connection: AsyncConnection,
        insertions: Sequence[Sequence[NewJob]],
        now: datetime,
        *,
        limited: bool = True,
    ) -> Admission:
        """Decide over ``insertions``, each all or none, in their order.

        ``limited``: `GroupRule.max_size` and `GroupPolicy.window` hold; else they are taken in whatever is there.
        """
        admission = Admission()
        wanted = _by_group(job for jobs in insertions for job in jobs)
        if not wanted:
            return admission
        rows = await self._group_rows(connection, wanted, now, limited=limited)
        rooms = await self._rooms(connection, wanted, rows, limited=limited)
        for index, jobs in enumerate(insertions):
            ids = [job.id for job in jobs]
            refusals = (rooms[name].refusal(part, ids) for name, part in _by_group(jobs).items())
            refusal = next((refusal for refusal in refusals if refusal is not None), None)
            if refusal is not None:
                admission.refused[index] = refusal
                continue
            for job in jobs:
                reason = None if job.group is None else rooms[job.group].take(job)
                if reason is not None:
                    admission.waiting[job.id] = reason
        numbered = [
            replace(row, next_position=rooms[name].next_position)
            for name, row in rows.items()
            if rooms[name].next_position != row.next_position
        ]
        await self._rows.write(connection, numbered, now)
        return admission

    async def _group_rows(
        self, connection: AsyncConnection, wanted: Wanted, now: datetime, *, limited: bool
    ) -> dict[str, GroupRow]:
        rows = await self._rows.read(connection, wanted)
        new = wanted.keys() - rows.keys()
        if new:
            await self._rows.make(connection, new, now)
            rows |= {name: GroupRow(name, None, None, ()) for name in new}
        counted = _numbered(wanted)
        if limited:
            rule_of = self._policy.rules.rule_of
            counted |= {
                name for name in wanted if self._policy.window is not None or rule_of(name).max_size is not None
            }
        return rows | await self._rows.lock(connection, counted, now) if counted else rows

    async def _rooms(
        self, connection: AsyncConnection, wanted: Wanted, rows: Mapping[str, GroupRow], *, limited: bool
    ) -> dict[str, GroupRoom]:
        rooms = {name: GroupRoom(name, rows[name].next_position) for name in wanted}
        for name in _numbered(wanted):
            await self._look_at_numbers(connection, rooms[name], wanted[name])
        if limited:
            for name, room in rooms.items():
                room.window, room.max_size = self._policy.window, self._policy.rules.rule_of(name).max_size
            for name, count in await self._count(connection, self._waiting, {n: r.max_size for n, r in rooms.items()}):
                rooms[name].waiting = count
            for name, count in await self._count(
                connection, self._unfinished, dict.fromkeys(rooms, self._policy.window)
            ):
                rooms[name].unfinished = count
        return rooms

    async def _look_at_numbers(self, connection: AsyncConnection, room: GroupRoom, jobs: Sequence[NewJob]) -> None:
        if room.next_position is None:
            room.has_plain = bool(await connection.scalar(self._has_plain, {"name": room.name}))
        asked = [{"position": job.position} for job in jobs if job.position is not None]
        parameters = {"name": room.name, "batch": encode_rows(asked)}
        room.used.update((await connection.execute(self._used, parameters)).scalars())

    async def _count(
        self, connection: AsyncConnection, query: sa.Select[Any], limits: Mapping[str, int | None]
    ) -> list[tuple[str, int]]:
        """How many jobs each group has, counted up to its limit; those without one are left out."""
        alike: defaultdict[int, list[str]] = defaultdict(list)
        for name, limit in limits.items():
            if limit is not None:
                alike[limit].append(name)
        counts: list[tuple[str, int]] = []
        for limit, names in alike.items():
            batch = encode_rows([{"name": name} for name in names])
            rows = await connection.execute(query, {"batch": batch, "limit": limit})
            counts += [(row.name, row.count) for row in rows]
        return counts


def _by_group(jobs: Iterable[NewJob]) -> dict[str, list[NewJob]]:
    groups: defaultdict[str, list[NewJob]] = defaultdict(list)
    for job in jobs:
        if job.group is not None:
            groups[job.group].append(job)
    return groups


def _numbered(wanted: Wanted) -> set[str]:
    return {name for name, jobs in wanted.items() if any(job.position is not None for job in jobs)}


def _counted(tables: Tables, dialect: Dialect, *which: sa.ColumnElement[bool]) -> sa.Select[Any]:
    c, names = tables.jobs.c, dialect.rows({"name": sa.Text()})
    some = (
        sa.select(c.seq)
        .where(c.group_key == names.c.name, c.final_state.is_(None), *which)
        .limit(sa.bindparam("limit", type_=sa.Integer))
        .correlate(names)
        .subquery()
    )
    count = sa.select(sa.func.count()).select_from(some).scalar_subquery()
    return sa.select(names.c.name, count.label("count"))
