"""Whose turn it is, decided wrongly, or not kept by the store and the executor, is found."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest

from jq_actors.job import JobId
from jq_actors.turns import GroupView, Leave, Park, Start, Turn, turn_of
from tests.simulation.budget import Budget
from tests.simulation.explorer import Liveness

from .configurations import TWO_QUEUES, TWO_SEATS
from .properties import Broken
from .system import Contract, Decisions, System
from .test_planted_token_bugs import found


def test_the_guard_is_off(capsys: pytest.CaptureFixture[str]) -> None:
    def off(group: GroupView, job_id: JobId, queue: str, now: datetime) -> Turn:
        turn = turn_of(group, job_id, queue, now)
        return turn if isinstance(turn, Leave) else Start(replace(group.members[0], job_id=job_id))

    # The second one's publisher was faster.
    system = System("whatever is delivered starts", (0, 0), Budget(), decisions=Decisions(turn_of=off))
    found(system, Broken.ORDER, "J2 of g started before J1", capsys)


def test_a_run_is_not_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    def impatient(group: GroupView, job_id: JobId, queue: str, now: datetime) -> Turn:
        return turn_of(replace(group, running=0), job_id, queue, now)

    # The first one was retried by an operator while the second ran; and the lane has a seat too many.
    system = System(
        "running jobs are not counted",
        (0, 0),
        Budget(failures=1, replays=1),
        TWO_SEATS,
        quick="PR",
        decisions=Decisions(turn_of=impatient),
    )
    found(system, Broken.OVERLAP, "2 runs", capsys)


def test_a_paused_group_starts_something(capsys: pytest.CaptureFixture[str]) -> None:
    def deaf(group: GroupView, job_id: JobId, queue: str, now: datetime) -> Turn:
        return turn_of(replace(group, paused=None), job_id, queue, now)

    system = System("pauses are not seen", (0,), Budget(pauses=1), quick="PR", decisions=Decisions(turn_of=deaf))
    found(system, Broken.PAUSED, "J1", capsys)


def test_a_lane_is_left_for_a_job_of_another_queue(capsys: pytest.CaptureFixture[str]) -> None:
    # Whoever moves that job again offers its lane, and not this one.
    def leaves(group: GroupView, job_id: JobId, queue: str, now: datetime) -> Turn:
        turn = turn_of(group, job_id, queue, now)
        return Leave(turn.reason) if isinstance(turn, Park) and "until" in turn.reason else turn

    system = System(
        "behind a head of another queue that retries for long",
        (0, 1),
        Budget(long_retries=1),
        TWO_QUEUES,
        quick="PR",
        decisions=Decisions(turn_of=leaves),
    )
    found(system, Liveness.STUCK, "L2 has work, and neither token nor server", capsys)


# -- promises of the store and the executor ---------------------------------------------------------------


@pytest.mark.parametrize(
    "contract",
    [Contract(parked_is_marked=False), Contract(releases_parked=False)],
    ids=["acked and not marked", "never released"],
)
def test_a_parked_job_is_forgotten(contract: Contract, capsys: pytest.CaptureFixture[str]) -> None:
    system = System("behind a job of another queue", (0, 1), Budget(), TWO_QUEUES, quick="PR", contract=contract)
    violation = found(system, Liveness.STUCK, "J2 is", capsys)
    assert any(", park" in name for name in violation.trace)


def test_the_delivery_in_hand_is_acked_with_the_job_that_ran_instead(capsys: pytest.CaptureFixture[str]) -> None:
    system = System(
        "granted instead, and the delivery acked",
        (0, 0),
        Budget(faults=1, cuts=1, reorders=1),
        contract=Contract(keeps_the_delivery_of_another=False),
    )
    violation = found(system, Liveness.STUCK, "J2 is queued", capsys)
    assert any("J1 instead" in name for name in violation.trace)


def test_a_job_that_ran_instead_is_interrupted_and_still_counts_as_published(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Its own delivery was acked when it had to wait for its retry; the one that it ran by is dropped, for the other job
    # is cancelled.
    system = System(
        "interrupted while it ran in place of another",
        (0, 0),
        Budget(shutdowns=1, long_retries=1, cancels=1),
        workers="A",
        quick="PRO",
        contract=Contract(republishes_interrupted_instead=False),
    )
    found(system, Liveness.STUCK, "J1 is queued", capsys)
