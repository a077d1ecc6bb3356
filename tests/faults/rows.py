"""The rows of jobs, attempts and workers, as an operator would look at them: by SQL, past the store."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from tests.support.waiting import eventually_sync

from .database import Lookout

FINAL = ("succeeded", "failed", "cancelled", "superseded")


@dataclass(frozen=True, slots=True)
class JobRow:
    """A row of ``orm_jobs`` with the result of its payload."""

    id: str
    state: str
    reason: str | None
    dispatch: int
    attempt: int
    crashes: int
    worker_id: str | None
    published: bool
    result: Any


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """A row of ``orm_jobs_attempts``."""

    number: int
    worker_id: str
    outcome: str


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A row of ``orm_jobs_workers``. ``alive``: its lease is not over."""

    id: str
    pid: int
    held: dict[str, int]
    alive: bool


class Rows:
    """The tables of one store. They are there as soon as something has opened the store."""

    def __init__(self, url: str) -> None:
        self._lookout = Lookout(url)

    def close(self) -> None:
        self._lookout.close()

    def jobs(self) -> dict[str, JobRow]:
        """All jobs by id."""
        found = self._lookout.rows(
            "SELECT id::text, state, reason, dispatch, attempt, crashes, worker_id, published_at IS NOT NULL,"
            " result FROM orm_jobs JOIN orm_jobs_payloads ON job_id = id"
        )
        return {row[0]: JobRow(*(*row[:-1], None if row[-1] is None else json.loads(row[-1]))) for row in found}

    def states(self) -> Counter[str]:
        """How many jobs are in each state."""
        return Counter(dict(self._lookout.rows("SELECT state, count(*) FROM orm_jobs GROUP BY state")))

    def attempts(self) -> dict[str, list[AttemptRow]]:
        """The ended attempts of each job, oldest first."""
        found: defaultdict[str, list[AttemptRow]] = defaultdict(list)
        for job_id, *row in self._lookout.rows(
            "SELECT job_id::text, number, worker_id, outcome FROM orm_jobs_attempts ORDER BY started_at, number"
        ):
            found[job_id].append(AttemptRow(*row))
        return found

    def workers(self) -> list[WorkerRow]:
        """All workers, also those that are lost and not yet found so."""
        return [
            WorkerRow(*row)
            for row in self._lookout.rows("SELECT id, pid, held, lease_until > clock_timestamp() FROM orm_jobs_workers")
        ]

    def running_on(self, pid: int) -> set[str]:
        """The jobs that the process ``pid`` has claimed and not settled."""
        found = self._lookout.rows(
            "SELECT j.id::text FROM orm_jobs j JOIN orm_jobs_workers w ON w.id = j.worker_id"
            " WHERE j.state = 'running' AND w.pid = %s",
            pid,
        )
        return {row[0] for row in found}

    def dirty_connections(self) -> list[Any]:
        """Connections of jq_actors that sit in a transaction and do nothing."""
        return self._lookout.rows(
            "SELECT pid, state, query FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'jq_actors' AND state LIKE 'idle in transaction%'"
            " AND state_change < clock_timestamp() - interval '1 second'"
        )

    def committing(self) -> int:
        """How many connections of jq_actors are committing new jobs just now."""
        [(count,)] = self._lookout.rows(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'jq_actors' AND state = 'active' AND query ILIKE '%insert into orm_jobs%'"
        )
        return int(count)

    def grow_older(self, by: timedelta) -> None:
        """Let queued rows have been published so much earlier: time passes for them, and nobody waits."""
        self._lookout.execute("UPDATE orm_jobs SET published_at = published_at - %s WHERE state = 'queued'", by)

    def wait_for_end(self, count: int, timeout: float) -> Counter[str]:
        """Wait until there are ``count`` jobs and all have ended; returns how many are in each state."""

        def look() -> Counter[str] | None:
            states = self.states()
            ended = sum(states[state] for state in FINAL)
            return states if ended == states.total() == count else None

        try:
            return eventually_sync(look, timeout, f"the end of {count} jobs")
        except AssertionError as error:
            error.add_note(f"States: {self.states()}")
            raise

    def wait_for_state(self, job_ids: Collection[str], state: str, timeout: float) -> None:
        """Wait until all of ``job_ids`` are in ``state``."""
        wanted = sorted(job_ids)
        query = "SELECT count(*) FROM orm_jobs WHERE id = ANY(%s::uuid[]) AND state = %s"

        def look() -> bool:
            [(count,)] = self._lookout.rows(query, wanted, state)
            return bool(count == len(wanted))

        eventually_sync(look, timeout, f"{len(wanted)} jobs to be {state}")
