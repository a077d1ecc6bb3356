"""What the store, the relay and the executor have to keep besides (`system.Contract`): without it, this happens.

Each of these is a hole that the checker found, or the reason for a sentence of DESIGN. They are tests of the model, and
a list of what production has to be tested for.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from .budget import Budget
from .checking import check
from .explorer import Liveness
from .properties import Broken
from .system import Contract, Plan, System
from .test_planted_bugs import found, sound

JOB = Plan()


def test_crashes_are_not_counted(capsys: pytest.CaptureFixture[str]) -> None:
    system = System(
        "crash not counted",
        jobs=(JOB,),
        budget=Budget(faults=1, crashes=1),
        contract=Contract(counts_crashes=False),
    )
    found(system, Broken.CRASHES, capsys)
    sound(system)


def test_the_relay_raises_the_dispatch_of_missing_rows(capsys: pytest.CaptureFixture[str]) -> None:
    # The worker is busy, so the copy waits in its prefetch; the relay takes the row for missing and raises the
    # dispatch; the copy is stale before it is looked at. The next one as well, and so on.
    system = System(
        "relay bumps the dispatch on missing rows",
        jobs=(JOB,),
        restless_relay=2,
        budget=Budget(),
        contract=Contract(missing_keeps_dispatch=False),
    )
    violation = found(system, Liveness.LIVELOCK, capsys)
    assert any("drop_stale" in name for name in violation.cycle)
    assert any("missing" in name for name in violation.cycle)
    sound(system)


def test_a_recovered_job_still_counts_as_published(capsys: pytest.CaptureFixture[str]) -> None:
    system = System(
        "recover leaves published_at",
        jobs=(JOB,),
        acks_early=True,
        budget=Budget(faults=1, crashes=1),
        contract=Contract(recovered_is_unpublished=False),
    )
    found(system, Broken.LAST_COPY_GONE, capsys)
    sound(system)


def test_a_due_job_still_counts_as_published(capsys: pytest.CaptureFixture[str]) -> None:
    system = System(
        "take_due leaves published_at, and the relay dies before it publishes",
        jobs=(JOB,),
        slow_publishing=True,
        relays="AB",
        budget=Budget(faults=1, crashes=1, retries=1),
        contract=Contract(raised_is_unpublished=False),
    )
    found(system, Broken.LAST_COPY_GONE, capsys)
    sound(system)


def test_a_job_interrupted_after_an_early_ack_still_counts_as_published(capsys: pytest.CaptureFixture[str]) -> None:
    system = System(
        "an interrupted job is not published again",
        jobs=(JOB,),
        acks_early=True,
        budget=Budget(shutdowns=1),
        contract=Contract(republishes_interrupted=False),
    )
    found(system, Broken.LAST_COPY_GONE, capsys)
    sound(system)


def test_a_repeated_claim_is_not_recognised(capsys: pytest.CaptureFixture[str]) -> None:
    # It sees a row that runs under a live lease, its own, and holds for ever.
    system = System(
        "the answer to a claim is lost, and the claim repeated",
        jobs=(JOB,),
        budget=Budget(faults=1, lost_answers=1),
        contract=Contract(claims_know_their_own=False, forgotten_claims_are_given_back=False),
    )
    violation = found(system, Liveness.STUCK, capsys)
    assert violation.why == "J1 is running"
    sound(system)


def test_a_repeated_settlement_is_not_recognised(capsys: pytest.CaptureFixture[str]) -> None:
    # It is refused, so the delivery is acked instead of given back, and the job is queued without a copy.
    system = System(
        "the answer to the settling of an interrupted run is lost, and the settling repeated",
        jobs=(JOB,),
        budget=Budget(faults=1, lost_answers=1, shutdowns=1),
        contract=Contract(settles_know_their_own=False),
    )
    violation = found(system, Broken.LAST_COPY_GONE, capsys)
    assert any("refused" in name for name in violation.trace)
    sound(system)


def test_a_forgotten_claim_is_kept_for_ever(capsys: pytest.CaptureFixture[str]) -> None:
    # After an error the delivery is looked at again under a fresh token: running elsewhere, it seems; hold.
    system = System(
        "an error of ours ends the life of a claimed delivery",
        jobs=(JOB,),
        budget=Budget(faults=1, errors=1),
        contract=Contract(forgotten_claims_are_given_back=False),
    )
    violation = found(system, Liveness.STUCK, capsys)
    assert violation.why == "J1 is running"
    sound(system)


def test_a_worker_claims_before_it_has_renewed_its_lease(capsys: pytest.CaptureFixture[str]) -> None:
    # Stopped before its claim, it claims under a lease that is over: anybody may take the job away at once.
    system = System(
        "a claim under a lease that is over",
        jobs=(JOB,),
        budget=Budget(faults=1, stops=1),
        contract=Contract(acts_under_own_lease=False),
    )
    violation = found(system, Broken.OVERLAP, capsys)
    assert any("goes on" in name for name in violation.trace)
    assert not any("renews its lease" in name for name in violation.trace)
    sound(system)


def test_a_worker_recovers_itself(capsys: pytest.CaptureFixture[str]) -> None:
    # One process, suspended with its machine: its relay is faster than its heartbeat, and finds itself lost.
    system = System(
        "the only worker finds its own lease over",
        jobs=(JOB,),
        workers="A",
        relays="A",
        prefetch=2,
        budget=Budget(faults=1, outages=1),
        contract=Contract(acts_under_own_lease=False, grace_after_own_lapse=False),
    )
    violation = found(system, Broken.OVERLAP, capsys)
    assert any("A's relay recovers J1 from A1" in name for name in violation.trace)
    sound(system)


def test_whoever_comes_back_first_takes_the_others_for_lost(capsys: pytest.CaptureFixture[str]) -> None:
    system = System(
        "the database was away, and every lease is over",
        jobs=(JOB,),
        budget=Budget(faults=1, outages=1),
        contract=Contract(grace_after_own_lapse=False),
    )
    violation = found(system, Broken.OVERLAP, capsys)
    assert any("the database is away" in name for name in violation.trace)
    sound(system)


def test_a_late_mark_hides_that_a_job_is_unpublished(capsys: pytest.CaptureFixture[str]) -> None:
    system = System(
        "a mark comes after the job was acked early, lost and recovered",
        jobs=(JOB,),
        slow_publishing=True,
        acks_early=True,
        budget=Budget(faults=1, crashes=1),
        contract=Contract(marks_under_publish_lease=False),
    )
    violation = found(system, Broken.LAST_COPY_GONE, capsys)
    assert "marks J1#1" in violation.trace[-1]
    sound(system)


def test_an_unhandled_job_is_offered_only_to_those_who_join(capsys: pytest.CaptureFixture[str]) -> None:
    system = System(
        "the worker that knows the actor had joined before",
        jobs=(Plan(known_to="B"),),
        budget=Budget(strangers=1),
        contract=Contract(offers_unhandled_again_and_again=False),
    )
    violation = found(system, Liveness.STUCK, capsys)
    assert violation.why == "J1 is unhandled"
    sound(system)


def test_a_worker_leaves_while_it_still_runs_a_job(capsys: pytest.CaptureFixture[str]) -> None:
    system = System(
        "the row of a worker is removed before its last run has ended",
        jobs=(JOB,),
        budget=Budget(shutdowns=1),
        contract=Contract(leaves_when_idle=False),
    )
    violation = found(system, Broken.OVERLAP, capsys)
    assert any("removes its row" in name for name in violation.trace)
    sound(system)


def test_a_living_worker_is_known_dead(capsys: pytest.CaptureFixture[str]) -> None:
    # Two machines of one name, or a start time that moved with the clock.
    system = System(
        "a living worker is taken for known dead",
        jobs=(JOB,),
        same_host=True,
        budget=Budget(),
        contract=Contract(known_dead_is_dead=False),
    )
    found(system, Broken.OVERLAP, capsys)
    sound(system)


def test_the_known_limit_an_adopted_job_may_run_again_once_its_row_is_pruned(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # No row was promised, so a copy that outlives the retention looks new. Rows of promised jobs have no such limit.
    system = System(
        "a copy of an adopted job outlives its row",
        jobs=(Plan(foreign=True),),
        prunes=True,
        budget=Budget(faults=1, duplicates=1),
    )
    found(system, Broken.RUN_AGAIN, capsys)
    assert check(replace(system, prunes=False)).violation is None
