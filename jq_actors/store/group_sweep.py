"""The relay's look at parked jobs: what a settlement missed is released, and gaps that lasted too long are ended."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from functools import partial

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.durations import format_duration
from jq_actors.events import Event, GroupPaused
from jq_actors.groups import OnGap
from jq_actors.job import JobState
from jq_actors.turns import Member

from .database import Database
from .group_names import names_behind
from .group_release import GroupReleases, is_ripe
from .group_rows import GroupRows
from .group_stops import GroupStops
from .group_views import Sight
from .tables import JOB_ID, Tables

GROUPS_AT_ONCE = 500
"""Groups with parked jobs that one look reads; the next one goes on behind them."""


class GroupSweep:
    """Goes round all groups that have parked jobs."""

    def __init__(
        self, database: Database, tables: Tables, rows: GroupRows, releases: GroupReleases, stops: GroupStops
    ) -> None:
        self._database, self._rows, self._releases, self._stops = database, rows, releases, stops
        self._after = ""
        self._names = names_behind(tables, lambda job: job.c.parked_at.is_not(None))
        c = tables.jobs.c
        self._head = sa.select(c.parked_at, c.position).where(c.id == sa.bindparam("job_id", type_=JOB_ID))
        self._ended_at = sa.select(c.finished_at).where(
            c.group_key == sa.bindparam("name", type_=sa.Text),
            c.position == sa.bindparam("number", type_=sa.BigInteger),
            c.position.is_not(None),
        )

    async def release_waiting(self, limit: int, now: datetime) -> tuple[int, list[Event]]:
        """See JobStore; also what to tell. Looks at up to ``limit`` groups."""
        names, sights = await self._database.read(lambda c: self._look(c, min(limit, GROUPS_AT_ONCE)))
        self._after = names[-1] if len(names) == min(limit, GROUPS_AT_ONCE) else ""
        events: list[Event] = []
        released = 0
        for sight in (sight for sight in sights if _waits_for_number(sight)):
            count, paused = await self._database.write(partial(self._end_gap, name=sight.row.name, now=now))
            released, events = released + count, events + paused
        ripe = [sight.row.name for sight in sights if is_ripe(sight)]
        if ripe:
            released += await self._database.write(lambda c: self._releases.release(c, ripe, now))
        return released, events

    async def _look(self, connection: AsyncConnection, limit: int) -> tuple[list[str], list[Sight]]:
        found = await connection.execute(self._names, {"after": self._after, "limit": limit})
        names = list(found.scalars())
        return names, await self._releases.sights(connection, names) if names else []

    async def _end_gap(self, connection: AsyncConnection, name: str, now: datetime) -> tuple[int, list[Event]]:
        rows = await self._rows.lock(connection, [name], now)
        for sight in await self._releases.sights(connection, [name]):
            head, timeout = _waits_for_number(sight), sight.rule.gap_timeout
            if head is None or timeout is None:
                continue
            row = (await connection.execute(self._head, {"job_id": head.job_id})).one()
            if await self._waits_since(connection, name, head, row.parked_at or now) + timeout > now:
                continue
            if sight.rule.on_gap is OnGap.PAUSE:
                reason = f"position {head.gap_before} did not come within {format_duration(timeout)}"
                paused = await self._stops.pause(connection, {name: reason}, now)
                return 0, [GroupPaused(name, reason) for _ in paused]
            await self._rows.write(connection, [replace(rows[name], next_position=row.position)], now)
            return await self._releases.release(connection, [name], now), []
        return 0, []

    async def _waits_since(self, connection: AsyncConnection, name: str, head: Member, parked_at: datetime) -> datetime:
        """Since when it is that number that the group waits for: not while one before it had not ended."""
        assert head.gap_before is not None
        before = {"name": name, "number": head.gap_before - 1}
        ended_at = await connection.scalar(self._ended_at, before)
        return max(parked_at, ended_at or parked_at)


def _waits_for_number(sight: Sight) -> Member | None:
    """The parked head of a group whose rule does not let it wait for ever for the number before."""
    if sight.rule.gap_timeout is None:
        return None
    head = next((member for member in sight.members if member.state is not JobState.RUNNING), None)
    return head if head is not None and head.state is JobState.WAITING and head.gap_before is not None else None
