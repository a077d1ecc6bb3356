"""Stopping groups: a pause, or the cancellation of jobs that do not run. The caller holds the groups' locks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import assert_never

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.events import Event, GroupCancelled, GroupPaused
from jq_actors.model.group_rules import OnFailure
from jq_actors.model.job import UNFINISHED_STATES, JobId, JobState
from jq_actors.model.turn_rules import PAUSED
from jq_actors.store.tables import MAX_REASON, Tables, storable

from .rows import GroupPolicy, LockedGroups
from .turns import NOW, waiting

_CANCELLABLE = sorted(state.value for state in UNFINISHED_STATES - {JobState.RUNNING})
_GROUP = sa.bindparam("of_group", type_=sa.Text)
_REASON = sa.bindparam("why", type_=sa.Text)


@dataclass(frozen=True, slots=True)
class FailedJob:
    """A job of a group that has just failed for good."""

    job_id: JobId
    group: str
    error: str


class GroupStops:
    """Pauses groups or cancels their jobs: because an operator asks for it, or because a job failed (`OnFailure`)."""

    def __init__(self, tables: Tables, policy: GroupPolicy) -> None:
        self._policy = policy
        g, jobs = tables.groups.c, tables.jobs
        c = jobs.c
        self._pause = sa.update(tables.groups).where(g.name == _GROUP).values(paused_at=NOW, paused_reason=_REASON)
        self._withdraw = (
            sa.update(jobs)
            .where(c.group_key == _GROUP, c.final_state.is_(None), c.state == JobState.QUEUED.value)
            .values(waiting(PAUSED))
        )
        self._holding = sa.select(sa.func.count()).where(c.group_key == _GROUP, c.final_state.is_(None), c.has_place)
        self._cancel = (
            sa.update(jobs)
            .where(c.group_key == _GROUP, c.final_state.is_(None), c.state.in_(_CANCELLABLE))
            .values(
                state=JobState.CANCELLED.value,
                final_state=JobState.CANCELLED.value,
                finished_at=NOW,
                reason=_REASON,
                has_place=False,
                publish_at=None,
                wake_at=None,
                parked_at=None,
                lane_owner=None,
            )
        )

    async def pause(
        self, connection: AsyncConnection, groups: LockedGroups, name: str, reason: str, now: datetime
    ) -> bool:
        """Pause the group: queued jobs wait again, so that no claim starts them. ``False``: it was paused already."""
        row = groups[name]
        if row.paused is not None:
            return False
        kept = storable(reason, MAX_REASON)
        parameters = {"of_group": name, "now": now}
        await connection.execute(self._pause, {**parameters, "why": kept})
        withdrawn = (await connection.execute(self._withdraw, parameters)).rowcount
        groups.put(replace(row, paused=kept, held=row.held - withdrawn, waiting=row.waiting + withdrawn))
        return True

    async def cancel(
        self, connection: AsyncConnection, groups: LockedGroups, name: str, reason: str, now: datetime
    ) -> int:
        """Cancel the unfinished jobs of the group, except those that run. Returns how many."""
        parameters = {"of_group": name, "why": storable(reason, MAX_REASON), "now": now}
        count = (await connection.execute(self._cancel, parameters)).rowcount
        # A job that runs, even one that was claimed just now, keeps its place.
        holding = (await connection.scalar(self._holding, {"of_group": name})) or 0
        groups.put(replace(groups[name], held=holding, waiting=0))
        return count

    async def after_failures(
        self, connection: AsyncConnection, groups: LockedGroups, failed: Iterable[FailedJob], now: datetime
    ) -> list[Event]:
        """Stop the groups of ``failed`` jobs where their rules say so. Returns the events to emit after the commit."""
        reasons: dict[str, str] = {}
        for job in failed:
            reasons.setdefault(job.group, f"job {job.job_id} failed: {job.error}")
        events: list[Event] = []
        for group in sorted(reasons):
            events += await self._after_failure(connection, groups, group, reasons[group], now)
        return events

    async def _after_failure(
        self, connection: AsyncConnection, groups: LockedGroups, name: str, reason: str, now: datetime
    ) -> list[Event]:
        rule = self._policy.rules.rule_of(name)
        match rule.on_failure:
            case OnFailure.CONTINUE:
                return []
            case OnFailure.PAUSE:
                is_new = await self.pause(connection, groups, name, reason, now)
                return [GroupPaused(name, reason)] if is_new else []
            case OnFailure.CANCEL_REST:
                count = await self.cancel(connection, groups, name, reason, now)
                return [GroupCancelled(name, count, reason)] if count else []
            case _:
                assert_never(rule.on_failure)
