"""What an outcome makes of the rows of its job."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar, assert_never

import sqlalchemy as sa

from jq_actors.errors import StoreError
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

from .records import Settlement
from .storable import MAX_ERROR, MAX_REASON, storable
from .tables import BIGINT, JOB_ID, UtcDateTime, iso_utc

WAKE_AFTER = timedelta(seconds=30)
"""How long after a retry was due, whose delivery is kept for it, a relay finds that nobody has claimed it."""

Row = dict[str, Any]
T = TypeVar("T")


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


def payload_row(settlement: Settlement) -> Row | None:
    """What of the outcome belongs into the payload."""
    failure = _failure(settlement.outcome)
    if failure is not None:
        error = storable(failure.error, MAX_ERROR)
        trace = storable(failure.traceback, len(failure.traceback))
        return {"job_id": settlement.job_id, "result": None, "error": error, "traceback": trace}
    if isinstance(settlement.outcome, Succeeded) and settlement.outcome.value is not None:
        result = settlement.outcome.encoded()
        return {"job_id": settlement.job_id, "result": result, "error": None, "traceback": None}
    return None


def columns() -> dict[str, sa.types.TypeEngine[Any]]:
    """Those of `settled_row`."""
    text, number, time = sa.Text(), sa.Integer(), UtcDateTime()
    of_job: dict[str, sa.types.TypeEngine[Any]]
    of_attempt: dict[str, sa.types.TypeEngine[Any]]
    of_job = {"state": text, "final_state": text, "finished_at": time, "reason": text, "due_at": time, "wake_at": time}
    of_attempt = {"started": time, "ended": time, "outcome": text, "error": text}
    flags = {"uncounted": number, "republish": number}
    return {"id": JOB_ID, "run_token": BIGINT, **of_job, **of_attempt, **flags}


def changes(jobs: sa.Table, given: sa.FromClause, now: sa.ColumnElement[Any]) -> Row:
    """What becomes of the job's row; ``given`` are the `columns`."""
    c, b = jobs.c, given.c
    return {
        "state": b.state,
        "final_state": b.final_state,
        "finished_at": b.finished_at,
        "reason": b.reason,
        "wake_at": b.wake_at,
        "due_at": sa.func.coalesce(b.due_at, c.due_at),
        "attempt": c.attempt - b.uncounted,
        "published_at": sa.case((b.republish == 0, c.published_at)),
        "publish_at": sa.case((b.republish == 1, now)),
    }


def stored(form: Callable[[Settlement], T], settlement: Settlement) -> T:
    """The ``form`` of the settlement.

    Raises:
      StoreError: its outcome has none that a database can hold; names its job.
    """
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


def _failure(outcome: Outcome) -> Failure | None:
    return outcome.failure if isinstance(outcome, Failed | Retrying) else None


def _name(outcome: Outcome) -> str:
    return type(outcome).__name__.lower()
