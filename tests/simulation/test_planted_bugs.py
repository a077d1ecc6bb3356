"""The checker is worth something: each decision of production, made wrong, is found, with a readable trace."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from enum import StrEnum

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
)
from jq_actors.model.job import JobState
from jq_actors.model.outcome import Interrupted, Outcome, Retrying

from .budget import Budget
from .checking import check
from .explorer import Liveness, Violation
from .properties import Broken
from .system import Contract, Decisions, Plan, System

JOB = Plan()


def found(system: System, kind: StrEnum, capsys: pytest.CaptureFixture[str]) -> Violation:
    """The violation of ``kind`` that the checker finds in ``system``, after it was printed step by step."""
    violation = check(system).violation
    assert violation is not None, f"{system.name}: the planted bug was not found"
    printed = capsys.readouterr().out
    assert violation.kind is kind, printed
    assert f"VIOLATION: {kind}" in printed
    assert violation.trace
    assert all(f"{number}. {name}" in printed for number, name in enumerate(violation.trace, 1))
    return violation


def sound(system: System) -> None:
    """The same system with production's decisions holds: it is the bug that was found, nothing else."""
    healthy = replace(system, decisions=Decisions(), contract=Contract())
    assert check(healthy).violation is None


# -- judge ------------------------------------------------------------------------------------------------


def grants_what_runs(row: RowView | None, dispatch: int, now: datetime, *, promised: bool) -> Verdict:
    verdict = judge(row, dispatch, now, promised=promised)
    return Verdict.GRANT if verdict is Verdict.HOLD else verdict


def test_a_running_job_is_granted_again(capsys: pytest.CaptureFixture[str]) -> None:
    system = System(
        "judge grants a running job under a live lease",
        jobs=(JOB,),
        budget=Budget(faults=1, cuts=1),
        decisions=Decisions(judge=grants_what_runs),
    )
    violation = found(system, Broken.OVERLAP, capsys)
    assert any("loses its connection" in name for name in violation.trace)
    sound(system)


def drops_what_runs(row: RowView | None, dispatch: int, now: datetime, *, promised: bool) -> Verdict:
    verdict = judge(row, dispatch, now, promised=promised)
    return Verdict.DROP_STALE if verdict is Verdict.HOLD else verdict


def test_the_safety_copy_is_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    # The worker's connection is lost, so the broker gives the only copy to another worker; that one drops it; then
    # the run is interrupted: its own delivery means nothing any more, and nobody has a copy.
    system = System(
        "judge drops instead of holds",
        jobs=(JOB,),
        budget=Budget(faults=1, cuts=1, shutdowns=1),
        decisions=Decisions(judge=drops_what_runs),
    )
    violation = found(system, Broken.LAST_COPY_GONE, capsys)
    assert any("drop_stale" in name for name in violation.trace)
    sound(system)


def grants_older_dispatches(row: RowView | None, dispatch: int, now: datetime, *, promised: bool) -> Verdict:
    if row is not None and row.state is JobState.RETRYING and dispatch == row.dispatch:
        return Verdict.GRANT
    return judge(row, dispatch, now, promised=promised)


def test_a_second_copy_runs_before_its_retry_is_due(capsys: pytest.CaptureFixture[str]) -> None:
    system = System(
        "the dispatch that ended in a retry is granted once more",
        jobs=(JOB,),
        budget=Budget(faults=1, duplicates=1, retries=1),
        decisions=Decisions(judge=grants_older_dispatches),
    )
    violation = found(system, Broken.TRANSITION, capsys)
    assert "retrying to running" in violation.why
    sound(system)


def ignores_the_dispatch(row: RowView | None, dispatch: int, now: datetime, *, promised: bool) -> Verdict:
    return judge(row, dispatch if row is None else row.dispatch, now, promised=promised)


def test_a_stale_dispatch_is_granted(capsys: pytest.CaptureFixture[str]) -> None:
    system = System(
        "stale dispatch granted",
        jobs=(JOB,),
        budget=Budget(faults=1, duplicates=1, retries=1),
        decisions=Decisions(judge=ignores_the_dispatch),
    )
    violation = found(system, Broken.STALE_RUN, capsys)
    assert any("takes J1, due" in name for name in violation.trace)
    sound(system)


def adopts_what_was_promised(row: RowView | None, dispatch: int, now: datetime, *, promised: bool) -> Verdict:
    return judge(row, dispatch, now, promised=False)


def test_a_missing_promised_row_is_adopted(capsys: pytest.CaptureFixture[str]) -> None:
    system = System(
        "missing promised row adopted",
        jobs=(JOB,),
        prunes=True,
        budget=Budget(faults=1, duplicates=1),
        decisions=Decisions(judge=adopts_what_was_promised),
    )
    violation = found(system, Broken.RUN_AGAIN, capsys)
    assert violation.trace[-1].endswith("adopt")
    sound(system)


def drops_what_is_lost(row: RowView | None, dispatch: int, now: datetime, *, promised: bool) -> Verdict:
    verdict = judge(row, dispatch, now, promised=promised)
    return Verdict.DROP_FINAL if verdict is Verdict.ADOPT else verdict


def test_a_message_of_another_producer_is_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    system = System(
        "a message without a row is dropped",
        jobs=(Plan(foreign=True),),
        budget=Budget(),
        decisions=Decisions(judge=drops_what_is_lost),
    )
    violation = found(system, Broken.LAST_COPY_GONE, capsys)
    assert violation.trace[-1].endswith("drop_final")
    sound(system)


# -- the lease, the fence, the counts ---------------------------------------------------------------------


def lease_does_not_matter(owner: Owner | None, now: datetime) -> bool:
    return True


def test_a_living_worker_is_taken_for_lost(capsys: pytest.CaptureFixture[str]) -> None:
    system = System(
        "owner_is_lost ignores the lease",
        jobs=(JOB,),
        budget=Budget(),
        decisions=Decisions(owner_is_lost=lease_does_not_matter),
    )
    violation = found(system, Broken.OVERLAP, capsys)
    assert any("recovers J1" in name for name in violation.trace)
    sound(system)


def lost_only_if_known(owner: Owner | None, now: datetime) -> bool:
    return owner_is_lost(owner, now) and (owner is None or owner.known_dead)


def never_takes_over(row: RowView | None, dispatch: int, now: datetime, *, promised: bool) -> Verdict:
    verdict = judge(row, dispatch, now, promised=promised)
    return Verdict.HOLD if verdict is Verdict.TAKE_OVER else verdict


def test_a_lease_that_never_ends(capsys: pytest.CaptureFixture[str]) -> None:
    system = System(
        "a lost worker's jobs are never taken",
        jobs=(JOB,),
        budget=Budget(faults=1, crashes=1),
        decisions=Decisions(owner_is_lost=lost_only_if_known, judge=never_takes_over),
    )
    violation = found(system, Liveness.STUCK, capsys)
    assert violation.why == "J1 is running"
    sound(system)


def ignores_the_token(state: JobState, row_token: int | None, run_token: int) -> bool:
    return may_settle(state, run_token, run_token)


def test_a_lost_run_writes_its_outcome(capsys: pytest.CaptureFixture[str]) -> None:
    system = System(
        "may_settle ignores the token",
        jobs=(JOB,),
        acks_early=True,
        budget=Budget(faults=1, stops=1),
        decisions=Decisions(may_settle=ignores_the_token),
    )
    violation = found(system, Broken.STRAY_WRITE, capsys)
    assert any("runs out while it is stopped" in name for name in violation.trace)
    sound(system)


def ignores_the_state(state: JobState, row_token: int | None, run_token: int) -> bool:
    return may_settle(JobState.RUNNING, run_token, run_token)


def test_an_outcome_is_written_into_a_job_that_does_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    system = System(
        "may_settle ignores token and state",
        jobs=(JOB,),
        budget=Budget(faults=1, stops=1),
        decisions=Decisions(may_settle=ignores_the_state),
    )
    # The row was queued again when the worker was taken for lost.
    violation = found(system, Broken.TRANSITION, capsys)
    assert "queued to succeeded" in violation.why
    sound(system)


def test_a_job_survives_every_crash(capsys: pytest.CaptureFixture[str]) -> None:
    system = System(
        "survives_crash always says yes",
        jobs=(JOB,),
        victims="AB",
        max_crashes=2,
        budget=Budget(faults=2, crashes=2),
        decisions=Decisions(survives_crash=lambda crashes, max_crashes: True),
    )
    found(system, Broken.CRASHES, capsys)
    sound(system)


def test_a_job_survives_one_crash_too_few(capsys: pytest.CaptureFixture[str]) -> None:
    system = System(
        "survives_crash counts from one",
        jobs=(JOB,),
        victims="AB",
        max_crashes=2,
        budget=Budget(faults=2, crashes=2),
        decisions=Decisions(survives_crash=lambda crashes, max_crashes: crashes + 1 < max_crashes),
    )
    violation = found(system, Broken.CRASHES, capsys)
    assert "1 times only" in violation.why
    sound(system)


def test_an_interrupted_attempt_counts(capsys: pytest.CaptureFixture[str]) -> None:
    system = System(
        "attempt_counts says yes to Interrupted",
        jobs=(JOB,),
        budget=Budget(shutdowns=1),
        decisions=Decisions(attempt_counts=lambda outcome: isinstance(outcome, Interrupted) or attempt_counts(outcome)),
    )
    found(system, Broken.ATTEMPTS, capsys)
    sound(system)


def retries_at_once(outcome: Outcome) -> JobState:
    return JobState.QUEUED if isinstance(outcome, Retrying) else state_after(outcome)


def test_a_retry_is_queued_and_its_delivery_acked(capsys: pytest.CaptureFixture[str]) -> None:
    system = System(
        "state_after queues a retry",
        jobs=(JOB,),
        budget=Budget(retries=1),
        decisions=Decisions(state_after=retries_at_once),
    )
    found(system, Broken.LAST_COPY_GONE, capsys)
    sound(system)
