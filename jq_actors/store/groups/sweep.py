"""The relay's check of numbered groups: they stop waiting for a number that did not come in time."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from functools import partial

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.config.durations import format_duration
from jq_actors.events import Event, GroupPaused
from jq_actors.model.group_rules import GroupRule, OnGap
from jq_actors.model.job import JobState
from jq_actors.model.turn_rules import GroupView, Member
from jq_actors.store.database.database import Database
from jq_actors.store.tables import JOB_ID, Tables

from .rows import GroupPolicy, GroupRow, GroupRows
from .snapshots import GroupSnapshots
from .stops import GroupStops
from .turns import GroupTurns

GROUPS_AT_ONCE = 500
"""How many groups one check reads; the next check continues behind them."""


class GroupSweep:
    """Goes round all numbered groups in which something waits."""

    def __init__(
        self,
        database: Database,
        tables: Tables,
        policy: GroupPolicy,
        rows: GroupRows,
        snapshots: GroupSnapshots,
        turns: GroupTurns,
        stops: GroupStops,
    ) -> None:
        self._database, self._policy, self._rows = database, policy, rows
        self._snapshots, self._turns, self._stops = snapshots, turns, stops
        self._after = ""
        c, g = tables.jobs.c, tables.groups.c
        self._names = (
            sa.select(g.name)
            .where(g.name > sa.bindparam("after", type_=sa.Text), g.next_position.is_not(None))
            .where(g.waiting > 0, g.paused_at.is_(None))
            .order_by(g.name)
            .limit(sa.bindparam("limit", type_=sa.Integer))
        )
        self._waiting_since = sa.select(c.parked_at).where(c.id == sa.bindparam("job_id", type_=JOB_ID))
        self._ended_at = sa.select(c.finished_at).where(
            c.group_key == sa.bindparam("name", type_=sa.Text),
            c.position == sa.bindparam("number", type_=sa.BigInteger),
            c.position.is_not(None),
        )

    async def end_gaps(self, limit: int, now: datetime) -> tuple[int, list[Event]]:
        """End the gaps of up to ``limit`` groups (`JobStore.end_gaps`). Also returns the events to emit."""
        if all(rule.gap_timeout is None for rule in self._policy.rules.rules):
            return 0, []
        most = min(limit, GROUPS_AT_ONCE)
        names = await self._database.read(lambda c: self._look(c, most))
        self._after = names[-1] if len(names) == most else ""
        released, events = 0, list[Event]()
        for name in names:
            if self._rule(name).gap_timeout is not None:
                count, paused = await self._database.write(partial(self._end_gap, name=name, now=now))
                released, events = released + count, events + paused
        return released, events

    async def _look(self, connection: AsyncConnection, limit: int) -> list[str]:
        return list((await connection.execute(self._names, {"after": self._after, "limit": limit})).scalars())

    def _rule(self, name: str) -> GroupRule:
        return self._policy.rules.rule_of(name)

    async def _end_gap(self, connection: AsyncConnection, name: str, now: datetime) -> tuple[int, list[Event]]:
        groups, rule = await self._rows.lock(connection, [name], now), self._rule(name)
        view = (await self._snapshots.read(connection, groups.rows))[name]
        head = _waits_for_number(view)
        if head is None or head.position is None or rule.gap_timeout is None:
            return 0, []
        if await self._waits_since(connection, groups[name], head, now) + rule.gap_timeout > now:
            return 0, []
        if rule.on_gap is OnGap.PAUSE:
            reason = f"position {view.next_position} did not come within {format_duration(rule.gap_timeout)}"
            is_new = await self._stops.pause(connection, groups, name, reason, now)
            await self._rows.write(connection, groups, now)
            return 0, [GroupPaused(name, reason)] if is_new else []
        groups.put(replace(groups[name], next_position=head.position))
        return (await self._turns.give(connection, groups, now)).count, []

    async def _waits_since(self, connection: AsyncConnection, group: GroupRow, head: Member, now: datetime) -> datetime:
        """Since when it is that number that the group waits for: not while one before it had not ended."""
        assert group.next_position is not None
        since = (await connection.scalar(self._waiting_since, {"job_id": head.job_id})) or now
        before = {"name": group.name, "number": group.next_position - 1}
        ended_at = await connection.scalar(self._ended_at, before)
        return max(since, ended_at or since)


def _waits_for_number(view: GroupView) -> Member | None:
    """The first job without a place, if there is one for it and it waits because the number before was not sent."""
    if sum(member.has_place for member in view.members) >= view.concurrency or view.next_position is None:
        return None
    head = next((member for member in view.members if not member.has_place), None)
    if head is None or head.state is not JobState.WAITING or head.position is None:
        return None
    return head if head.position > view.next_position and not view.ended else None
