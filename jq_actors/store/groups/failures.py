"""What a job that has failed for good does to its group, as the group's rule says (`OnFailure`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.events import Event, GroupCancelled, GroupPaused
from jq_actors.model.group_rules import OnFailure
from jq_actors.model.job import JobId

from .rows import GroupPolicy, LockedGroups
from .stops import GroupStops


@dataclass(frozen=True, slots=True)
class FailedJob:
    """A job of a group that has just failed for good."""

    job_id: JobId
    group: str
    error: str


class GroupFailures:
    """Pauses groups, or cancels the rest of them, in the transaction that fails a job and has locked its group."""

    def __init__(self, stops: GroupStops, policy: GroupPolicy) -> None:
        self._stops, self._policy = stops, policy

    async def stop(
        self, connection: AsyncConnection, groups: LockedGroups, failed: Iterable[FailedJob], now: datetime
    ) -> list[Event]:
        """Stop the groups of those that have ``failed``, where their rules say so.

        Returns what to tell once it is committed.
        """
        reasons: dict[str, str] = {}
        for job in failed:
            reasons.setdefault(job.group, f"job {job.job_id} failed: {job.error}")
        events: list[Event] = []
        for group in sorted(reasons):
            events += await self._stop(connection, groups, group, reasons[group], now)
        return events

    async def _stop(
        self, connection: AsyncConnection, groups: LockedGroups, name: str, reason: str, now: datetime
    ) -> list[Event]:
        rule = self._policy.rules.rule_of(name)
        match rule.on_failure:
            case OnFailure.CONTINUE:
                return []
            case OnFailure.PAUSE:
                is_new = await self._stops.pause(connection, groups, name, reason, now)
                return [GroupPaused(name, reason)] if is_new else []
            case OnFailure.CANCEL_REST:
                count = await self._stops.cancel(connection, groups, name, reason, now)
                return [GroupCancelled(name, count, reason)] if count else []
            case _:
                assert_never(rule.on_failure)
