"""How an outcome changes the rows of its job: the batch of a settlement, and the statements that write it.

On PostgreSQL's fast path these statements are parts of a single one. On SQLite and in transactions they run one after
the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_never

import sqlalchemy as sa

from jq_actors.errors import StoreError
from jq_actors.model.claim_rules import attempt_counts, state_after
from jq_actors.model.group_rules import GroupRules
from jq_actors.model.job import JobState
from jq_actors.model.outcome import (
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
from jq_actors.store.database.dialect import NOW, ColumnTypes, Dialect
from jq_actors.store.records import Settlement
from jq_actors.store.tables import BIGINT, JOB_ID, MAX_ERROR, MAX_REASON, Tables, UtcDateTime, iso_utc, storable

Row = dict[str, Any]

_TEXT, _TIME = sa.Text(), UtcDateTime()

COLUMNS: ColumnTypes = {
    "id": JOB_ID,
    "run_token": BIGINT,
    "state": _TEXT,
    "final_state": _TEXT,
    "finished_at": _TIME,
    "due_at": _TIME,
    "reason": _TEXT,
    "uncounted": sa.Integer(),
    "republish": sa.Integer(),
    "group_key": _TEXT,
    "frees": sa.Boolean(),
    "started": _TIME,
    "ended": _TIME,
    "outcome": _TEXT,
    "error": _TEXT,
}
"""The columns that `settled_row` always fills."""
KEPT: ColumnTypes = {"result": _TEXT, "traceback": _TEXT}
"""The columns that it adds for outcomes that are stored in the payload."""


def settled_row(settlement: Settlement, rules: GroupRules, *, paused: bool = False) -> Row:
    """Return the batch row that says what the outcome changes. ``paused``: whether the job's group is paused.

    Raises:
      StoreError: a database cannot store the outcome. The message names the job.
    """
    try:
        return {**_settled_row(settlement, rules, paused=paused), **_kept(settlement.outcome)}
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise StoreError(f"The outcome of job {settlement.job_id} has no stored form: {error}") from error


def keeps_something(row: Row) -> bool:
    """Whether ``row`` changes the payload."""
    return not KEPT.keys().isdisjoint(row)


def size_of_settlement(settlement: Settlement) -> int:
    """Return the approximate size of an outcome in bytes; 0 if it has no stored form, since it will be refused."""
    match settlement.outcome:
        case Succeeded(None):
            return 0
        case Succeeded() as succeeded:
            try:
                return len(succeeded.encoded() or "")
            except (TypeError, ValueError, RecursionError):
                return 0
        case Failed(failure) | Retrying(failure):
            return len(failure.traceback)
        case _:
            return 0


def _settled_row(settlement: Settlement, rules: GroupRules, *, paused: bool) -> Row:
    outcome = settlement.outcome
    state = state_after(outcome)
    if paused and state is JobState.QUEUED:
        state = JobState.WAITING
    due_at = settlement.finished_at + outcome.delay if isinstance(outcome, Retrying | Snoozed) else None
    failure = _failure(outcome)
    finished_at = iso_utc(settlement.finished_at)
    return {
        "id": settlement.job_id,
        "run_token": settlement.run_token,
        "state": state,
        "final_state": state if state.is_final else None,
        "finished_at": finished_at if state.is_final else None,
        "due_at": None if due_at is None else iso_utc(due_at),
        "reason": _reason(outcome),
        "uncounted": 0 if attempt_counts(outcome) else 1,
        "republish": int(settlement.republish),
        "group_key": settlement.group,
        "frees": settlement.group is not None and _frees_its_place(state, settlement.group, rules),
        "started": iso_utc(settlement.started_at),
        "ended": finished_at,
        "outcome": type(outcome).__name__.lower(),
        "error": None if failure is None else storable(failure.error, MAX_ERROR),
    }


def _frees_its_place(state: JobState, group: str, rules: GroupRules) -> bool:
    """Whether a running job of ``group`` frees its place when it changes to ``state``."""
    if state is JobState.RETRYING:
        return rules.rule_of(group).overtake
    return state.is_final or state is JobState.WAITING


def _kept(outcome: Outcome) -> Row:
    failure = _failure(outcome)
    if failure is not None:
        return {"traceback": storable(failure.traceback, len(failure.traceback))}
    if isinstance(outcome, Succeeded) and outcome.value is not None:
        return {"result": outcome.encoded()}
    return {}


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


def _failure(outcome: Outcome) -> Failure | None:
    return outcome.failure if isinstance(outcome, Failed | Retrying) else None


# -- the statements; ``given`` is the batch


def settling(tables: Tables, given: sa.FromClause, *fence: sa.ColumnElement[bool]) -> sa.Update:
    """Update the jobs' rows where ``fence`` permits it."""
    jobs = tables.jobs
    return sa.update(jobs).where(jobs.c.id == given.c.id, *fence).values(_changes(jobs, given))


def recording(
    tables: Tables, dialect: Dialect, given: sa.FromClause, settled: sa.FromClause, *same: sa.ColumnElement[bool]
) -> sa.Insert:
    """Insert the attempts. ``settled`` is the jobs' rows after `settling`; ``same`` joins it with ``given``."""
    a, b, s = tables.attempts.c, given.c, settled.c
    attempt = {
        a.job_id: s.id,
        a.run_token: s.run_token,
        a.number: s.attempt + b.uncounted,
        a.worker_id: s.worker_id,
        a.started_at: b.started,
        a.finished_at: b.ended,
        a.outcome: b.outcome,
        a.error: b.error,
    }
    ended = sa.select(*attempt.values()).where(*same)
    insert = dialect.insert(tables.attempts).from_select(list(attempt), ended)
    return insert.on_conflict_do_nothing(index_elements=[a.job_id, a.run_token])


def keeping(tables: Tables, given: sa.FromClause, *same: sa.ColumnElement[bool]) -> sa.Update:
    """Update the payloads with results and errors. ``same`` joins them with ``given``."""
    p = tables.payloads.c
    kept = {name: given.c[name] for name in ("result", "error", "traceback")}
    some = sa.or_(*(value.is_not(None) for value in kept.values()))
    # A NULL leaves the old value: a result does not erase the error of an earlier attempt.
    values = {name: sa.func.coalesce(value, p[name]) for name, value in kept.items()}
    return sa.update(tables.payloads).where(*same, some).values(values)


def _changes(jobs: sa.Table, given: sa.FromClause) -> Mapping[str, Any]:
    c, b = jobs.c, given.c
    return {
        "state": b.state,
        "final_state": b.final_state,
        "finished_at": b.finished_at,
        "reason": b.reason,
        "wake_at": b.due_at,
        "due_at": sa.func.coalesce(b.due_at, c.due_at),
        "has_place": c.has_place & ~b.frees,
        "parked_at": sa.case((b.state == JobState.WAITING.value, NOW)),
        "attempt": c.attempt - b.uncounted,
        "published_at": sa.case((b.republish == 0, c.published_at)),
        "publish_at": sa.case(((b.republish == 1) & (b.state == JobState.QUEUED.value), NOW)),
    }
