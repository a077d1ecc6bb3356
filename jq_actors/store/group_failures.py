"""What a job that has failed for good does to its group, as the group's rule says (`OnFailure`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.events import Event, GroupCancelled, GroupPaused
from jq_actors.groups import OnFailure
from jq_actors.job import JobId

from .dialect import Dialect, encode_rows
from .group_rows import GroupPolicy, GroupRows
from .group_stops import GroupStops
from .tables import JOB_ID, Tables


@dataclass(frozen=True, slots=True)
class FailedJob:
    """A job that has just failed for good."""

    job_id: JobId
    error: str


class GroupFailures:
    """Pauses groups, or cancels the rest of them, in the transaction that fails a job.

    `lock` before the jobs' rows are written to, `stop` after.
    """

    def __init__(
        self, tables: Tables, dialect: Dialect, rows: GroupRows, stops: GroupStops, policy: GroupPolicy
    ) -> None:
        self._rows, self._stops, self._policy = rows, stops, policy
        jobs, ids = tables.jobs, dialect.rows({"id": JOB_ID})
        self._groups = (
            sa.select(jobs.c.id, jobs.c.group_key).join(ids, ids.c.id == jobs.c.id).where(jobs.c.group_key.is_not(None))
        )

    @property
    def may_stop(self) -> bool:
        """Whether a rule says so of any group."""
        return any(rule.on_failure is not OnFailure.CONTINUE for rule in self._policy.rules.rules)

    async def lock(self, connection: AsyncConnection, job_ids: Iterable[JobId], now: datetime) -> Mapping[JobId, str]:
        """Lock the groups that have to stop when these jobs, which run, fail; returns the group of each such job."""
        ids = [{"id": job_id} for job_id in job_ids]
        if not ids or not self.may_stop:
            return {}
        rows = await connection.execute(self._groups, {"batch": encode_rows(ids)})
        groups = {
            JobId(row.id): row.group_key
            for row in rows
            if self._policy.rules.rule_of(row.group_key).on_failure is not OnFailure.CONTINUE
        }
        if groups:
            await self._rows.lock(connection, groups.values(), now)
        return groups

    async def stop(
        self, connection: AsyncConnection, groups: Mapping[JobId, str], failed: Iterable[FailedJob], now: datetime
    ) -> list[Event]:
        """Stop the groups of those that have ``failed``; ``groups`` is what `lock` returned.

        Returns what to tell once it is committed.
        """
        reasons: dict[str, str] = {}
        for job in failed:
            if job.job_id in groups:
                reasons.setdefault(groups[job.job_id], f"job {job.job_id} failed: {job.error}")
        events: list[Event] = []
        for group in sorted(reasons):
            events += await self._stop(connection, group, reasons[group], now)
        return events

    async def _stop(self, connection: AsyncConnection, group: str, reason: str, now: datetime) -> list[Event]:
        rule = self._policy.rules.rule_of(group)
        match rule.on_failure:
            case OnFailure.CONTINUE:
                return []
            case OnFailure.PAUSE:
                return [GroupPaused(name, reason) for name in await self._stops.pause(connection, {group: reason}, now)]
            case OnFailure.CANCEL_REST:
                count = await self._stops.cancel(connection, group, reason, now)
                return [GroupCancelled(group, count, reason)] if count else []
            case _:
                assert_never(rule.on_failure)
