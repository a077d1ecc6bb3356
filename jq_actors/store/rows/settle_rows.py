"""What an outcome makes of the rows of its job."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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
from jq_actors.store.records import Settlement
from jq_actors.store.tables import BIGINT, JOB_ID, UtcDateTime, iso_utc

from .storable import MAX_ERROR, MAX_REASON, storable

Row = dict[str, Any]


def settled_row(settlement: Settlement, rules: GroupRules, *, paused: bool = False) -> Row:
    """What the outcome makes of the job's row, and the attempt that it ends. ``paused``: its group is.

    Raises:
      StoreError: the outcome has no form that a database can hold; names its job.
    """
    with _storing(settlement):
        return _settled_row(settlement, rules, paused=paused)


def payload_row(settlement: Settlement) -> Row | None:
    """What of the outcome belongs into the payload. Raises as `settled_row` does."""
    with _storing(settlement):
        return _payload_row(settlement)


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
        "frees": settlement.group is not None and frees_its_place(state, settlement.group, rules),
        "started": iso_utc(settlement.started_at),
        "ended": finished_at,
        "outcome": _name(outcome),
        "error": None if failure is None else storable(failure.error, MAX_ERROR),
    }


def frees_its_place(state: JobState, group: str, rules: GroupRules) -> bool:
    """Whether a job of ``group`` that was running gives its place away when it is in ``state``."""
    if state is JobState.RETRYING:
        return rules.rule_of(group).overtake
    return state.is_final or state is JobState.WAITING


def _payload_row(settlement: Settlement) -> Row | None:
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
    of_job = {"state": text, "final_state": text, "finished_at": time, "reason": text, "due_at": time}
    of_attempt = {"started": time, "ended": time, "outcome": text, "error": text}
    of_group: dict[str, sa.types.TypeEngine[Any]] = {"group_key": text, "frees": sa.Boolean()}
    flags = {"uncounted": number, "republish": number}
    return {"id": JOB_ID, "run_token": BIGINT, **of_job, **of_attempt, **of_group, **flags}


def changes(jobs: sa.Table, given: sa.FromClause, now: sa.ColumnElement[Any]) -> Row:
    """What becomes of the job's row; ``given`` are the `columns`."""
    c, b = jobs.c, given.c
    return {
        "state": b.state,
        "final_state": b.final_state,
        "finished_at": b.finished_at,
        "reason": b.reason,
        "wake_at": b.due_at,
        "due_at": sa.func.coalesce(b.due_at, c.due_at),
        "has_place": c.has_place & ~b.frees,
        "parked_at": sa.case((b.state == JobState.WAITING.value, now)),
        "attempt": c.attempt - b.uncounted,
        "published_at": sa.case((b.republish == 0, c.published_at)),
        "publish_at": sa.case(((b.republish == 1) & (b.state == JobState.QUEUED.value), now)),
    }


@contextmanager
def _storing(settlement: Settlement) -> Iterator[None]:
    try:
        yield
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
