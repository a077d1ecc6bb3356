"""Reading groups: what each one does, and why it waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.model.group import Group, GroupState
from jq_actors.model.job import JobId, JobState
from jq_actors.model.turn_rules import GroupView, why_it_waits
from jq_actors.store.database.database import Database
from jq_actors.store.database.dialect import encode_column, encode_rows
from jq_actors.store.groups.rows import GroupRow, GroupRows
from jq_actors.store.groups.snapshots import GroupSnapshots
from jq_actors.store.records import GroupPage
from jq_actors.store.tables import JOB_ID, NO_PLACE, Tables, UtcDateTime, group_order

from .cursors import decode_cursor, encode_cursor
from .group_names import names_behind

CHUNK = 500
"""How many groups are read at once in a search for groups in certain states."""

Row = sa.Row[Any]

CURSOR = "group"
"""The kind of its pages' cursors."""

_AFTER = sa.bindparam("after", type_=sa.Text)
_LIMIT = sa.bindparam("limit", type_=sa.Integer)
_NOW = sa.bindparam("now", type_=UtcDateTime)


class GroupReading:
    """Reads groups. It locks nothing."""

    def __init__(self, database: Database, tables: Tables, rows: GroupRows, snapshots: GroupSnapshots) -> None:
        self._database, self._rows, self._snapshots = database, rows, snapshots
        c, g = tables.jobs.c, tables.groups.c
        names = database.dialect.rows({"name": sa.Text()})
        self._counts = _counts(tables).where(c.group_key.in_(sa.select(names.c.name)))
        paused = sa.select(g.name).where(g.name > _AFTER, g.paused_at.is_not(None)).order_by(g.name).limit(_LIMIT)
        with_jobs = names_behind(tables, lambda job: job.c.group_key.is_not(None) & job.c.final_state.is_(None))
        both = sa.union(*(sa.select(part.subquery().c.name) for part in (paused, with_jobs))).subquery()
        self._paused_names, self._all_names = paused, sa.select(both.c.name).order_by(both.c.name).limit(_LIMIT)
        self._has_had_jobs = sa.select(sa.exists().where(c.group_key == sa.bindparam("of_group", type_=sa.Text)))
        ids = database.dialect.rows({"id": JOB_ID})
        self._reasons = sa.select(c.id, c.reason).join(ids, ids.c.id == c.id)
        self._heads = _heads(database, tables)

    async def get(self, group: str, now: datetime) -> Group | None:
        """Return what is known about a group at ``now``; ``None``: nothing."""

        async def get(connection: AsyncConnection) -> Group | None:
            found = await self._read(connection, [group], now)
            if not found and await connection.scalar(self._has_had_jobs, {"of_group": group}):
                return _group(group, GroupView(()), None, None, {}, now)
            return found[0] if found else None

        return await self._database.read(get)

    async def find(self, states: frozenset[GroupState], limit: int, after: str | None, now: datetime) -> GroupPage:
        """Return a page of up to ``limit`` groups in ``states`` that have unfinished jobs or are paused, by name."""
        last = "" if after is None else _name_in(after)
        found: list[Group] = []
        while len(found) <= limit:
            most = limit + 1 if not states else max(limit + 1, CHUNK)
            groups = await self._database.read(partial(self._chunk, states=states, after=last, most=most, now=now))
            found += [group for group in groups if not states or group.state in states]
            if len(groups) < most:
                break
            last = groups[-1].name
        # One more than wanted tells whether there is a next page.
        cursor = encode_cursor(CURSOR, found[limit - 1].name) if len(found) > limit else None
        return GroupPage(tuple(found[:limit]), cursor)

    async def _chunk(
        self, connection: AsyncConnection, states: frozenset[GroupState], after: str, most: int, now: datetime
    ) -> list[Group]:
        names = self._paused_names if states == {GroupState.PAUSED} else self._all_names
        page = (await connection.execute(names, {"after": after, "limit": most})).scalars().all()
        return await self._read(connection, page, now)

    async def _read(self, connection: AsyncConnection, names: Sequence[str], now: datetime) -> list[Group]:
        """The groups with these names of which something is known, in the order of the names."""
        batch = {"batch": encode_column("name", names)}
        counts = {row.group_key: row for row in await connection.execute(self._counts, {**batch, "now": now})}
        rows = await self._rows.read(connection, names)
        known = {name: rows.get(name) or GroupRow(name) for name in names if name in {*rows, *counts}}
        views = await self._snapshots.read(connection, known)
        heads = {row.group_key: row for row in await connection.execute(self._heads, batch)}
        reasons = await self._unhandled_reasons(connection, views)
        return [_group(name, view, counts.get(name), heads.get(name), reasons, now) for name, view in views.items()]

    async def _unhandled_reasons(
        self, connection: AsyncConnection, views: Mapping[str, GroupView]
    ) -> dict[JobId, str | None]:
        ids = [
            {"id": member.job_id}
            for view in views.values()
            for member in view.members
            if member.state is JobState.UNHANDLED
        ]
        if not ids:
            return {}
        rows = await connection.execute(self._reasons, {"batch": encode_rows(ids)})
        return {JobId(row.id): row.reason for row in rows}


def state_of(view: GroupView, reasons: Mapping[JobId, str | None]) -> tuple[GroupState, str | None]:
    """What a group does, and why it waits, if it does. ``reasons``: the reasons in the rows of unhandled jobs."""
    if view.paused is not None:
        return GroupState.PAUSED, view.paused
    if any(member.state is JobState.RUNNING for member in view.members):
        return GroupState.RUNNING, None
    if not view.members:
        return GroupState.IDLE, None
    reason, head = why_it_waits(view), view.members[0]
    if reason is None:
        return GroupState.QUEUED, None
    if head.state is JobState.UNHANDLED and reasons.get(head.job_id):
        return GroupState.BLOCKED, f"{reason}: {reasons[head.job_id]}"
    return GroupState.BLOCKED, reason


def _name_in(cursor: str) -> str:
    name = decode_cursor(CURSOR, cursor)
    if not name or "\0" in name:
        raise ValueError(f"{cursor!r} is not a cursor of a page of groups.")
    return name


def _group(
    name: str,
    view: GroupView,
    counts: Row | None,
    head: Row | None,
    reasons: Mapping[JobId, str | None],
    now: datetime,
) -> Group:
    state, reason = state_of(view, reasons)
    oldest = None if counts is None else counts.oldest
    return Group(
        name=name,
        state=state,
        reason=reason,
        waiting=0 if counts is None else counts.waiting,
        running=0 if counts is None else counts.running,
        scheduled=0 if counts is None else counts.scheduled,
        head=None if head is None else JobId(head.id),
        oldest_due_at=oldest,
        lag=None if oldest is None else now - oldest,
        next_position=_next_position(view, head),
    )


def _next_position(view: GroupView, head: Row | None) -> int | None:
    position = view.next_position
    while position is not None and position in view.ended:
        position += 1
    if position is None or head is None or head.state == JobState.RUNNING:
        return position
    return min(position, int(head.position))


def _counts(tables: Tables) -> sa.Select[Any]:
    """The unfinished jobs of each group by state, and since when the oldest of them could have run."""
    c = tables.jobs.c
    waiting = c.state.not_in((JobState.RUNNING.value, JobState.SCHEDULED.value))

    def count(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
        return sa.func.count(sa.case((condition, 1)))

    return (
        sa.select(
            c.group_key,
            count(waiting).label("waiting"),
            count(c.state == JobState.RUNNING.value).label("running"),
            count(c.state == JobState.SCHEDULED.value).label("scheduled"),
            sa.func.min(sa.case((waiting & (c.due_at <= _NOW), c.due_at)), type_=UtcDateTime()).label("oldest"),
        )
        .where(c.group_key.is_not(None), c.final_state.is_(None))
        .group_by(c.group_key)
    )


def _heads(database: Database, tables: Tables) -> sa.Select[Any]:
    """The first job of each group that has not ended and is not scheduled."""
    jobs, names = tables.jobs, database.dialect.rows({"name": sa.Text()})
    job = jobs.alias("head")
    head = (
        sa.select(job.c.seq)
        .where(job.c.group_key == names.c.name, job.c.final_state.is_(None), group_order(job) < NO_PLACE)
        .where(job.c.state != JobState.SCHEDULED.value)
        .order_by(group_order(job))
        .limit(1)
    )
    found = database.dialect.each_with(names, head, jobs, jobs.c.seq)
    return sa.select(jobs.c.group_key, jobs.c.id, jobs.c.state, jobs.c.position).select_from(found)
