"""Settling: the outcome of a run is written under its fence, the run token."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar, assert_never

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.errors import StoreError
from jq_actors.events import Event
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
from .group_ends import GroupEnds
from .group_failures import FailedJob
from .group_rows import GroupPolicy
from .records import Settlement
from .storable import MAX_ERROR, MAX_REASON, storable
from .tables import BIGINT, JOB_ID, Tables, UtcDateTime, iso_utc

WAKE_AFTER = timedelta(seconds=30)
"""How long after a retry was due, whose delivery is kept for it, a relay finds that nobody has claimed it."""

Row = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of settlements. The events are to be told when it is committed."""

    written: list[bool]
    """In their order."""
    events: list[Event]


class Settles:
    """Writes outcomes, their attempts, and what of them belongs into the payload."""

    def __init__(self, tables: Tables, dialect: Dialect, groups: GroupEnds, policy: GroupPolicy) -> None:
        self._groups, self._policy = groups, policy
        self._settle_statement = _settle(tables, dialect)
        self._record_statement = _record(tables, dialect)
        self._keep_statement = _keep(tables, dialect)
        self._find_statement = _find(tables, dialect)

    async def write(
        self, connection: AsyncConnection, settlements: Sequence[Settlement], now: datetime, *, again: bool
    ) -> Settled:
        """Write what its fence lets through.

        ``again``: an earlier try may have been committed; what it wrote counts as written.

        Raises:
          StoreError: an outcome has no form that a database can hold; names its job.
        """
        # One row for each run: of two outcomes for one run, the first stands.
        first = {settlement.run_token: settlement for settlement in reversed(settlements)}
        batch = {"batch": encode_rows([_stored(settled_row, settlement) for settlement in first.values()])}
        failing = {s.job_id: s.outcome.failure for s in first.values() if isinstance(s.outcome, Failed)}
        locked = await self._groups.lock(connection, failing, now)
        rows = (await connection.execute(self._settle_statement, {**batch, "now": now})).all()
        written = {row.run_token for row in rows}
        events: list[Event] = []
        if written:
            await connection.execute(self._record_statement, batch)
            await self._keep(connection, [first[token] for token in written])
            failed = [FailedJob(row.id, failing[row.id].error) for row in rows if row.state == JobState.FAILED]
            events = await self._groups.ended(connection, locked, failed, self._freed(rows), now)
        if again and len(written) < len(first):
            written |= set((await connection.execute(self._find_statement, batch)).scalars())
        return Settled([s.run_token in written and s is first[s.run_token] for s in settlements], events)

    def _freed(self, rows: Sequence[sa.Row[Any]]) -> set[str]:
        """The groups in which those behind may go on."""
        return {
            row.group_key
            for row in rows
            if row.group_key is not None
            and (
                row.final_state is not None
                or (row.state == JobState.RETRYING and self._policy.rules.rule_of(row.group_key).overtake)
            )
        }

    async def _keep(self, connection: AsyncConnection, settlements: Sequence[Settlement]) -> None:
        payloads = [payload for payload in (_stored(_payload, s) for s in settlements) if payload is not None]
        if payloads:
            await connection.execute(self._keep_statement, {"batch": encode_rows(payloads)})


def settled_row(settlement: Settlement) -> Row:
    """What the outcome makes of the job's row, and the attempt that it ends."""
    outcome = settlement.outcome
    state = state_after(outcome)
    due_at = settlement.finished_at + outcome.delay if isinstance(outcome, Retrying | Snoozed) else None
    wake_at = due_at + WAKE_AFTER if due_at is not None and settlement.keeps_turn else due_at
    failure = _failure(outcome)
    finished_at = iso_utc(settlement.finished_at)
    return {
        "id": settlement.job_id,
        "run_token": settlement.run_token,
        "state": state,
        "final_state": state if state.is_final else None,
        "finished_at": finished_at if state.is_final else None,
        "due_at": None if due_at is None else iso_utc(due_at),
        "wake_at": None if wake_at is None else iso_utc(wake_at),
        "reason": _reason(outcome),
        "uncounted": 0 if attempt_counts(outcome) else 1,
        "republish": int(settlement.republish),
        "started": iso_utc(settlement.started_at),
        "ended": finished_at,
        "outcome": _name(outcome),
        "error": None if failure is None else storable(failure.error, MAX_ERROR),
    }


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


def _batch(dialect: Dialect) -> sa.FromClause:
    text, number, time = sa.Text(), sa.Integer(), UtcDateTime()
    of_job: dict[str, sa.types.TypeEngine[Any]]
    of_attempt: dict[str, sa.types.TypeEngine[Any]]
    of_job = {"state": text, "final_state": text, "finished_at": time, "reason": text, "due_at": time, "wake_at": time}
    of_attempt = {"started": time, "ended": time, "outcome": text, "error": text}
    flags = {"uncounted": number, "republish": number}
    return dialect.rows({"id": JOB_ID, "run_token": BIGINT, **of_job, **of_attempt, **flags})


def _settle(tables: Tables, dialect: Dialect) -> sa.UpdateBase:
    c, b = tables.jobs.c, _batch(dialect).c
    now = sa.bindparam("now", type_=UtcDateTime)
    return (
        sa.update(tables.jobs)
        .where(c.id == b.id, c.run_token == b.run_token, c.state == JobState.RUNNING.value)
        .values(
            state=b.state,
            final_state=b.final_state,
            finished_at=b.finished_at,
            reason=b.reason,
            wake_at=b.wake_at,
            due_at=sa.func.coalesce(b.due_at, c.due_at),
            attempt=c.attempt - b.uncounted,
            published_at=sa.case((b.republish == 0, c.published_at)),
            publish_at=sa.case((b.republish == 1, now)),
        )
        .returning(c.id, c.run_token, c.group_key, c.state, c.final_state)
    )


def _record(tables: Tables, dialect: Dialect) -> sa.Insert:
    c, b, a = tables.jobs.c, _batch(dialect).c, tables.attempts.c
    columns = {
        a.job_id: b.id,
        a.run_token: b.run_token,
        a.number: c.attempt + b.uncounted,
        a.worker_id: c.worker_id,
        a.started_at: b.started,
        a.finished_at: b.ended,
        a.outcome: b.outcome,
        a.error: b.error,
    }
    # From the rows themselves, after they were settled: what was refused because another run holds the claim has
    # another token there, and what was refused because this run had ended before has its attempt already.
    rows = sa.select(*columns.values()).where(
        c.id == b.id, c.run_token == b.run_token, c.state != JobState.RUNNING.value
    )
    insert = dialect.insert(tables.attempts).from_select(list(columns), rows)
    return insert.on_conflict_do_nothing(index_elements=[a.job_id, a.run_token])


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
    a, b = tables.attempts.c, _batch(dialect).c
    return sa.select(a.run_token).where(
        a.job_id == b.id, a.run_token == b.run_token, a.outcome == b.outcome, a.finished_at == b.ended
    )
