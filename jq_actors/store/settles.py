"""Settling: the outcome of a run is written under its fence, the run token."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar, assert_never

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.errors import StoreError
from jq_actors.job import JobState
from jq_actors.outcome import (
    Cancelled,
    Failed,
    Failure,
    Interrupted,
    Outcome,
    Retrying,
    Snoozed,
    Succeeded,
    Unhandled,
)
from jq_actors.protocol import attempt_counts, state_after

from .dialect import Dialect, encode_rows
from .port import Settlement
from .tables import BIGINT, JOB_ID, Tables, UtcDateTime

MAX_REASON = 500
"""Characters of the reason in the hot row."""
MAX_ERROR = 4_000
"""Characters of the error in an attempt and in the payload."""

Row = dict[str, Any]
T = TypeVar("T")


class Settles:
    """Writes outcomes, their attempts, and what of them belongs into the payload."""

    def __init__(self, tables: Tables, dialect: Dialect) -> None:
        self._settle_statement = _settle(tables, dialect)
        self._record_statement = _record(tables, dialect)
        self._keep_statement = _keep(tables, dialect)
        self._find_statement = _find(tables, dialect)

    async def write(
        self, connection: AsyncConnection, settlements: Sequence[Settlement], now: datetime, *, again: bool
    ) -> list[bool]:
        """Write what its fence lets through; returns for each whether it was written.

        ``again``: an earlier try may have been committed; what it wrote counts as written.
        """
        rows = [_stored(settled_row, settlement) for settlement in settlements]
        parameters = {"batch": encode_rows(rows), "now": now}
        written = {row.run_token: row for row in await connection.execute(self._settle_statement, parameters)}
        done = [settlement for settlement in settlements if settlement.run_token in written]
        if done:
            attempts = [_attempt(settlement, written[settlement.run_token]) for settlement in done]
            await connection.execute(self._record_statement, {"batch": encode_rows(attempts)})
        payloads = [payload for payload in (_stored(_payload, s) for s in done) if payload is not None]
        if payloads:
            await connection.execute(self._keep_statement, {"batch": encode_rows(payloads)})
        before = set[int]()
        if again and len(done) < len(settlements):
            before = await self._written_before(connection, settlements)
        return [s.run_token in written or s.run_token in before for s in settlements]

    async def _written_before(
        self, connection: AsyncConnection, settlements: Sequence[Settlement]
    ) -> set[int]:
        keys = [
            {"job_id": s.job_id, "run_token": s.run_token, "outcome": _name(s.outcome)} for s in settlements
        ]
        return set((await connection.execute(self._find_statement, {"batch": encode_rows(keys)})).scalars())


def settled_row(settlement: Settlement) -> Row:
    """What the outcome makes of the job's row."""
    outcome = settlement.outcome
    state = state_after(outcome)
    delay = outcome.delay if isinstance(outcome, Retrying | Snoozed) else None
    return {
        "id": settlement.job_id,
        "run_token": settlement.run_token,
        "state": state,
        "final_state": state if state.is_final else None,
        "finished_at": settlement.finished_at if state.is_final else None,
        "wake_at": None if delay is None else settlement.finished_at + delay,
        "reason": _reason(outcome),
        "uncounted": 0 if attempt_counts(outcome) else 1,
        "republish": int(settlement.republish),
    }


def storable(text: str, length: int) -> str:
    """``text`` as every database can hold it: no NUL, no half of a surrogate pair, at most ``length`` characters."""
    return text[:length].replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()


def _stored(form: Callable[[Settlement], T], settlement: Settlement) -> T:
    try:
        return form(settlement)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise StoreError(f"The outcome of job {settlement.job_id} has no stored form: {error}") from error


def _reason(outcome: Outcome) -> str | None:
    match outcome:
        case Failed(failure) | Retrying(failure):
            return storable(failure.error, MAX_REASON)
        case Cancelled(reason) | Unhandled(reason):
            return storable(reason, MAX_REASON)
        case Succeeded() | Snoozed() | Interrupted():
            return None
        case _:
            assert_never(outcome)


def _attempt(settlement: Settlement, row: sa.Row[Any]) -> Row:
    uncounted = 0 if attempt_counts(settlement.outcome) else 1
    failure = _failure(settlement.outcome)
    return {
        "job_id": settlement.job_id,
        "run_token": settlement.run_token,
        "number": row.attempt + uncounted,
        "worker_id": row.worker_id,
        "started_at": settlement.started_at,
        "finished_at": settlement.finished_at,
        "outcome": _name(settlement.outcome),
        "error": None if failure is None else storable(failure.error, MAX_ERROR),
    }


def _payload(settlement: Settlement) -> Row | None:
    failure = _failure(settlement.outcome)
    if failure is not None:
        error = storable(failure.error, MAX_ERROR)
        trace = storable(failure.traceback, len(failure.traceback))
        return {"job_id": settlement.job_id, "result": None, "error": error, "traceback": trace}
    if isinstance(settlement.outcome, Succeeded) and settlement.outcome.value is not None:
        result = json.dumps(settlement.outcome.value, separators=(",", ":"))
        return {"job_id": settlement.job_id, "result": result, "error": None, "traceback": None}
    return None


def _failure(outcome: Outcome) -> Failure | None:
    return outcome.failure if isinstance(outcome, Failed | Retrying) else None


def _name(outcome: Outcome) -> str:
    return type(outcome).__name__.lower()


def _settle(tables: Tables, dialect: Dialect) -> sa.UpdateBase:
    jobs = tables.jobs
    copied: Mapping[str, Any] = {
        name: jobs.c[name].type for name in ("state", "final_state", "finished_at", "wake_at", "reason")
    }
    b = dialect.rows(
        {"id": JOB_ID, "run_token": BIGINT, "uncounted": sa.Integer(), "republish": sa.Integer(), **copied}
    ).c
    now = sa.bindparam("now", type_=UtcDateTime)
    return (
        sa.update(jobs)
        .where(jobs.c.id == b.id, jobs.c.run_token == b.run_token, jobs.c.state == JobState.RUNNING.value)
        .values(
            **{name: b[name] for name in copied},
            due_at=sa.func.coalesce(b.wake_at, jobs.c.due_at),
            attempt=jobs.c.attempt - b.uncounted,
            published_at=sa.case((b.republish == 0, jobs.c.published_at)),
            publish_at=sa.case((b.republish == 1, now)),
        )
        .returning(jobs.c.run_token, jobs.c.attempt, jobs.c.worker_id)
    )


def _record(tables: Tables, dialect: Dialect) -> sa.Insert:
    attempts = tables.attempts
    batch = dialect.rows({column.name: column.type for column in attempts.columns})
    return sa.insert(attempts).from_select(list(batch.c.keys()), sa.select(*batch.columns))


def _keep(tables: Tables, dialect: Dialect) -> sa.Update:
    payloads = tables.payloads
    kept = {name: payloads.c[name].type for name in ("result", "error", "traceback")}
    b = dialect.rows({"job_id": JOB_ID, **kept}).c
    # What is NULL in the batch stays as it is: a result does not erase the error of an earlier attempt.
    return (
        sa.update(payloads)
        .where(payloads.c.job_id == b.job_id)
        .values({name: sa.func.coalesce(b[name], payloads.c[name]) for name in kept})
    )


def _find(tables: Tables, dialect: Dialect) -> sa.Select[int]:
    attempts = tables.attempts
    batch = dialect.rows({"job_id": JOB_ID, "run_token": BIGINT, "outcome": sa.Text()})
    return sa.select(attempts.c.run_token).join(
        batch,
        sa.and_(
            attempts.c.job_id == batch.c.job_id,
            attempts.c.run_token == batch.c.run_token,
            attempts.c.outcome == batch.c.outcome,
        ),
    )
