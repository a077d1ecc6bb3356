"""Runs whose worker is lost, and how they end. Either a claim that takes over or a relay finds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.events import Event, JobFailed, JobTakenOver
from jq_actors.model.job import JobId, JobState
from jq_actors.store.database.dialect import Dialect, encode_rows
from jq_actors.store.groups.rows import LockedGroups
from jq_actors.store.groups.stops import FailedJob, GroupStops
from jq_actors.store.groups.turns import NOW
from jq_actors.store.tables import BIGINT, JOB_ID, Tables

LOST = "lost"
"""The outcome of such a run, as stored in its attempt's row."""


@dataclass(frozen=True, slots=True)
class LostRun:
    """A run that its worker will never finish."""

    job_id: JobId
    run_token: int
    actor: str
    queue: str
    group: str | None
    attempt: int
    crashes: int
    """Including this one."""
    worker_id: str
    where: str
    """``host:pid`` of the worker, or its id if its row is gone."""
    started_at: datetime

    @property
    def error(self) -> str:
        """What happened, in one line."""
        return f"worker lost ({self.where})"

    @property
    def reason(self) -> str:
        """Why the job failed, if this was one loss too many."""
        return f"{self.error} {self.crashes} times"


class LostRuns:
    """The compare-and-sets that end lost runs, each fenced by the run token.

    For jobs in groups, the caller must hold the locks of the groups, and afterwards give the turns to the next jobs
    (`GroupTurns.give`).
    """

    def __init__(self, tables: Tables, dialect: Dialect, stops: GroupStops) -> None:
        self._stops = stops
        jobs, attempts, payloads = tables.jobs, tables.attempts, tables.payloads
        lost = dialect.rows({"id": JOB_ID, "run_token": BIGINT, "reason": sa.Text()})
        ended = (
            sa.update(jobs)
            .where(
                jobs.c.id == lost.c.id,
                jobs.c.run_token == lost.c.run_token,
                jobs.c.state == JobState.RUNNING.value,
            )
            .values(crashes=jobs.c.crashes + 1)
            .returning(jobs.c.run_token)
        )
        self._queue = ended.values(
            state=JobState.QUEUED.value, published_at=None, publish_at=jobs.c.due_at, lane_owner=None
        )
        self._fail = ended.values(
            state=JobState.FAILED.value,
            final_state=JobState.FAILED.value,
            finished_at=NOW,
            reason=lost.c.reason,
            has_place=False,
        )
        run = dialect.rows({column.name: column.type for column in attempts.columns})
        self._record = sa.insert(attempts).from_select(
            [column.name for column in attempts.columns], sa.select(*run.columns)
        )
        self._explain = (
            sa.update(payloads).where(payloads.c.job_id == lost.c.id).values(error=lost.c.reason, traceback=None)
        )

    async def queue(self, connection: AsyncConnection, runs: Sequence[LostRun], now: datetime) -> list[LostRun]:
        """Queue the jobs again in their places, unpublished, with the same dispatch. Returns those still running."""
        return await self._end(connection, self._queue, runs, now)

    async def fail(
        self, connection: AsyncConnection, runs: Sequence[LostRun], groups: LockedGroups, now: datetime
    ) -> tuple[list[LostRun], list[Event]]:
        """Fail the jobs. Returns those that were still running, and the events of their groups."""
        failed = await self._end(connection, self._fail, runs, now)
        if not failed:
            return [], []
        await connection.execute(self._explain, {"batch": encode_rows([_row(run) for run in failed])})
        of_groups: list[FailedJob] = []
        for run in failed:
            if run.group is not None:
                groups.add(run.group, held=-1)
                of_groups.append(FailedJob(run.job_id, run.group, run.reason))
        return failed, await self._stops.after_failures(connection, groups, of_groups, now)

    async def record(self, connection: AsyncConnection, runs: Sequence[LostRun], now: datetime) -> None:
        """Write the attempts of the runs that have been ended."""
        rows = [
            {
                "job_id": run.job_id,
                "run_token": run.run_token,
                "number": run.attempt,
                "worker_id": run.worker_id,
                "started_at": run.started_at,
                "finished_at": now,
                "outcome": LOST,
                "error": run.error,
            }
            for run in runs
        ]
        if rows:
            await connection.execute(self._record, {"batch": encode_rows(rows)})

    async def _end(
        self, connection: AsyncConnection, statement: sa.Update, runs: Sequence[LostRun], now: datetime
    ) -> list[LostRun]:
        if not runs:
            return []
        batch = encode_rows([_row(run) for run in runs])
        tokens = set((await connection.execute(statement, {"batch": batch, "now": now})).scalars())
        ended = [run for run in runs if run.run_token in tokens]
        await self.record(connection, ended, now)
        return ended


def lost_run(row: sa.Row[Any]) -> LostRun:
    """Return the run in ``row`` (of `run_columns`), counted as lost."""
    return LostRun(
        job_id=row.id,
        run_token=row.run_token,
        actor=row.actor,
        queue=row.queue,
        group=row.group_key,
        attempt=row.attempt,
        crashes=row.crashes + 1,
        worker_id=row.worker_id,
        where=row.worker_id if row.host is None else f"{row.host.partition('/')[0]}:{row.pid}",
        started_at=row.started_at,
    )


def run_columns(tables: Tables) -> list[sa.ColumnElement[Any]]:
    """The columns that `lost_run` and the claim rules read from jobs joined with their workers."""
    c, w = tables.jobs.c, tables.workers.c
    of_job = [c.id, c.run_token, c.actor, c.queue, c.group_key, c.attempt, c.crashes, c.worker_id, c.started_at]
    return [*of_job, c.state, c.dispatch, w.host, w.pid, w.lease_until, w.process_started]


def events_of(queued: Sequence[LostRun], failed: Sequence[LostRun]) -> list[Event]:
    """Return the events to emit after the commit."""
    events: list[Event] = [JobTakenOver(run.job_id, run.crashes) for run in (*queued, *failed)]
    events += [JobFailed(run.job_id, run.actor, run.queue, run.attempt, run.reason) for run in failed]
    return events


def _row(run: LostRun) -> dict[str, Any]:
    return {"id": run.job_id, "run_token": run.run_token, "reason": run.reason}
