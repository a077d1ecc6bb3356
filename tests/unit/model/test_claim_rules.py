"""The decisions of claim, hold, settle and lease: every state against every kind of request."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from jq_actors.model.claim_rules import (
    Owner,
    RowView,
    Verdict,
    attempt_counts,
    judge,
    may_settle,
    owner_is_lost,
    state_after,
    survives_crash,
)
from jq_actors.model.job import TRANSITIONS, JobState
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

NOW = datetime(2026, 11, 24, tzinfo=UTC)
TICK = timedelta(microseconds=1)
ALIVE = Owner("w1", NOW + TICK)
LATE = Owner("w1", NOW)
DEAD = Owner("w1", NOW + timedelta(hours=1), known_dead=True)

FINAL = [JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.SUPERSEDED]
PARKED = [JobState.SCHEDULED, JobState.RETRYING, JobState.WAITING, JobState.UNHANDLED]


@pytest.mark.parametrize("promised", [True, False])
@pytest.mark.parametrize("dispatch", [6, 7, 8])
@pytest.mark.parametrize("state", JobState)
def test_a_delivery_is_judged_by_state_then_dispatch_then_owner(state: JobState, dispatch: int, promised: bool) -> None:
    expected = Verdict.DROP_STALE
    if state in FINAL:
        expected = Verdict.DROP_FINAL
    elif dispatch == 7 and state is JobState.QUEUED:
        expected = Verdict.GRANT
    elif dispatch == 7 and state is JobState.RUNNING:
        expected = Verdict.HOLD
    owner = ALIVE if state is JobState.RUNNING else None
    assert judge(RowView(state, 7, owner), dispatch, NOW, promised=promised) is expected


@pytest.mark.parametrize("state", PARKED)
def test_a_parked_job_is_never_run_by_its_old_dispatch(state: JobState) -> None:
    assert judge(RowView(state, 7), 7, NOW, promised=True) is Verdict.DROP_STALE


@pytest.mark.parametrize(
    ("owner", "verdict"),
    [
        (ALIVE, Verdict.HOLD),
        (LATE, Verdict.TAKE_OVER),
        (DEAD, Verdict.TAKE_OVER),
        (None, Verdict.TAKE_OVER),
    ],
)
def test_a_running_job_is_taken_over_only_from_a_lost_worker(owner: Owner | None, verdict: Verdict) -> None:
    assert judge(RowView(JobState.RUNNING, 7, owner), 7, NOW, promised=True) is verdict
    assert owner_is_lost(owner, NOW) == (verdict is Verdict.TAKE_OVER)


def test_a_stale_copy_of_a_lost_workers_job_does_not_take_it_over() -> None:
    assert judge(RowView(JobState.RUNNING, 7, DEAD), 6, NOW, promised=True) is Verdict.DROP_STALE


def test_without_a_row_a_promised_job_has_ended_and_an_unpromised_one_is_new() -> None:
    assert judge(None, 1, NOW, promised=True) is Verdict.DROP_FINAL
    assert judge(None, 1, NOW, promised=False) is Verdict.ADOPT


def test_only_drops_are_acknowledged_without_a_run() -> None:
    assert {verdict for verdict in Verdict if verdict.drops} == {Verdict.DROP_FINAL, Verdict.DROP_STALE}


@pytest.mark.parametrize(("crashes", "survives"), [(0, True), (2, True), (3, False), (4, False)])
def test_the_crash_that_reaches_the_limit_is_the_last(crashes: int, survives: bool) -> None:
    assert survives_crash(crashes, max_crashes=3) is survives


@pytest.mark.parametrize("state", JobState)
@pytest.mark.parametrize("row_token", [None, 41, 42])
def test_only_the_run_that_holds_the_claim_may_settle(state: JobState, row_token: int | None) -> None:
    assert may_settle(state, row_token, 42) == (state is JobState.RUNNING and row_token == 42)


FAILURE = Failure(None, "ValueError: no")
SETTLED: list[tuple[Outcome, JobState, bool]] = [
    (Succeeded(1), JobState.SUCCEEDED, True),
    (Failed(FAILURE), JobState.FAILED, True),
    (Retrying(FAILURE, timedelta(1)), JobState.RETRYING, True),
    (Snoozed(timedelta(1)), JobState.RETRYING, False),
    (Cancelled("asked"), JobState.CANCELLED, True),
    (Interrupted(), JobState.QUEUED, False),
    (Unhandled("no actor"), JobState.UNHANDLED, False),
]


@pytest.mark.parametrize(("outcome", "state", "counts"), SETTLED)
def test_an_outcome_settles_a_running_job_in_a_legal_state(outcome: Outcome, state: JobState, counts: bool) -> None:
    assert state_after(outcome) is state
    assert (JobState.RUNNING, state) in TRANSITIONS
    assert attempt_counts(outcome) is counts
