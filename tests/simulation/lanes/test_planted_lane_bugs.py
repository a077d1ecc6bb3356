"""The checker is worth something: each decision and each promise of groups, broken, is found, with a readable trace."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from enum import StrEnum

import pytest

from jq_actors.job import JobId
from jq_actors.transport.port import QueueDepth
from jq_actors.transport.tokens import AfterCancel
from jq_actors.turns import GroupView, Leave, Park, Start, Turn, turn_of
from tests.simulation.budget import Budget
from tests.simulation.explorer import Liveness, Violation

from .configurations import TWO_QUEUES, TWO_SEATS
from .model import check
from .properties import Broken
from .system import Contract, Decisions, System

FORGOTTEN = "has work, and neither token nor server"


def found(system: System, kind: StrEnum, why: str, capsys: pytest.CaptureFixture[str]) -> Violation:
    """The violation that the checker finds in ``system``, which without its bug has none."""
    violation = check(system).violation
    assert violation is not None, f"{system.name}: the planted bug was not found"
    printed = capsys.readouterr().out
    assert violation.kind is kind, printed
    assert why in violation.why, printed
    assert all(f"{number}. {name}" in printed for number, name in enumerate(violation.trace, 1))
    assert check(replace(system, decisions=Decisions(), contract=Contract())).violation is None
    return violation


# -- tokens -----------------------------------------------------------------------------------------------


def test_the_producer_looks_before_it_publishes(capsys: pytest.CaptureFixture[str]) -> None:
    # It sees a server, which then sees an empty lane and lets go; then the message comes.
    system = System(
        "look before publish",
        (0, 0),
        Budget(),
        rows=False,
        contract=Contract(publishes_before_it_looks=False),
    )
    violation = found(system, Liveness.STUCK, FORGOTTEN, capsys)
    assert "publishes J" in violation.trace[-1]


def test_the_token_is_acked_before_the_second_look(capsys: pytest.CaptureFixture[str]) -> None:
    system = System(
        "the token is acked when the consumer is cancelled, and the lane is served on without one",
        (0, 0),
        Budget(faults=1, crashes=1),
        rows=False,
        contract=Contract(acks_after_the_look=False),
    )
    violation = found(system, Liveness.STUCK, FORGOTTEN, capsys)
    assert any("crashes" in name for name in violation.trace)


def lets_go_at_once(lane: QueueDepth | None, *, blocked: bool) -> AfterCancel:
    return AfterCancel.LET_GO


def test_the_second_look_is_not_believed(capsys: pytest.CaptureFixture[str]) -> None:
    # What was on its way when the consumer was cancelled is in the lane again, and its sender saw it served.
    decisions = Decisions(after_cancel=lets_go_at_once)
    system = System("let go whatever is there", (0, 0), Budget(races=1), quick="PR", decisions=decisions)
    found(system, Liveness.STUCK, FORGOTTEN, capsys)


def test_the_old_token_is_acked_before_the_fresh_one_is_confirmed(capsys: pytest.CaptureFixture[str]) -> None:
    system = System(
        "hand-over: ack, then the fresh token",
        (0, 0),
        Budget(faults=1, crashes=1),
        rows=False,
        quantum=1,
        contract=Contract(hands_over_before_it_acks=False),
    )
    violation = found(system, Liveness.STUCK, FORGOTTEN, capsys)
    assert any("acks the old token" in name for name in violation.trace)


def test_a_token_is_replaced_while_its_lane_is_consumed(capsys: pytest.CaptureFixture[str]) -> None:
    # Somebody takes the fresh one, sees that the lane is served, and acks it: the server has none any more.
    system = System(
        "a token that was held for long is replaced without cancelling",
        (0, 0),
        Budget(faults=1, crashes=1),
        rows=False,
        quantum=1,
        contract=Contract(cancels_before_it_hands_over=False),
    )
    violation = found(system, Liveness.STUCK, FORGOTTEN, capsys)
    assert any("acks the token" in name for name in violation.trace)


def test_a_fresh_token_comes_back_before_the_old_one_is_acked(capsys: pytest.CaptureFixture[str]) -> None:
    # It would be acked, for the lane is served here; and then the old one is acked as well.
    system = System(
        "what ends counts as served",
        (0, 0),
        Budget(),
        rows=False,
        workers="A",
        slots=2,
        quantum=1,
        quick="P",
        contract=Contract(waits_for_own_changes=False),
    )
    found(system, Liveness.STUCK, FORGOTTEN, capsys)


def wants_every_lane(lane: QueueDepth | None, serving_here: int, seats: int) -> bool:
    return lane is not None


def test_seats_do_not_matter(capsys: pytest.CaptureFixture[str]) -> None:
    system = System(
        "is_wanted ignores the seats",
        (0, 0, 0),
        Budget(),
        TWO_SEATS,
        rows=False,
        workers="A",
        slots=3,
        concurrency=2,
        quick="P",
        decisions=Decisions(is_wanted=wants_every_lane),
    )
    found(system, Broken.ORDER, "J3 of g started before J1", capsys)


def never_looks_again(lane: QueueDepth | None, seconds: float, *, redelivered: bool) -> bool:
    return False


@pytest.mark.parametrize("rows", [True, False])
def test_the_dead_holder_of_a_token_is_taken_for_a_server(rows: bool, capsys: pytest.CaptureFixture[str]) -> None:
    system = System(
        "a redelivered token is acked at the first look",
        (0,),
        Budget(faults=1, crashes=1),
        rows=rows,
        decisions=Decisions(looks_again=never_looks_again),
    )
    violation = found(system, Liveness.STUCK, FORGOTTEN, capsys)
    assert "learns that A1 is gone" in violation.trace[-1]


def test_a_ghost_outlasts_the_patience(capsys: pytest.CaptureFixture[str]) -> None:
    system = System(
        "the broker takes longer than GHOSTS_LAST",
        (0,),
        Budget(faults=1, crashes=1),
        rows=False,
        contract=Contract(ghosts_do_not_last=False),
    )
    found(system, Liveness.STUCK, FORGOTTEN, capsys)


def test_a_lane_is_left_without_asking_again(capsys: pytest.CaptureFixture[str]) -> None:
    # Resumed between the claim and the cancel: whoever resumed it saw it served.
    system = System(
        "leave, and do not ask still_blocked",
        (0, 0),
        Budget(pauses=1),
        quick="PR",
        contract=Contract(asks_again_when_it_leaves=False),
    )
    violation = found(system, Liveness.STUCK, FORGOTTEN, capsys)
    assert any("is served" in name for name in violation.trace)


@pytest.mark.parametrize(
    ("contract", "budget"),
    [
        (Contract(resume_offers=False), Budget(pauses=1)),
        (Contract(cancel_offers=False), Budget(strangers=1, cancels=1)),
    ],
)
def test_nobody_offers_a_lane_that_was_left(
    contract: Contract, budget: Budget, capsys: pytest.CaptureFixture[str]
) -> None:
    system = System(
        "what blocked the group is gone, and its lane not offered", (0, 0), budget, workers="A", quick="PRO"
    )
    found(replace(system, contract=contract), Liveness.STUCK, FORGOTTEN, capsys)


# -- what the lane alone gives ----------------------------------------------------------------------------


def test_what_is_given_back_comes_too_late(capsys: pytest.CaptureFixture[str]) -> None:
    # Another worker consumes between the cancel and the return, and gets what was behind it.
    system = System(
        "cancel, and then give back",
        (0, 0, 0),
        Budget(),
        rows=False,
        quantum=1,
        contract=Contract(gives_back_in_one_breath=False),
    )
    found(system, Broken.ORDER, "started before", capsys)


def test_a_lane_is_deleted_before_what_was_in_hand_is_back(capsys: pytest.CaptureFixture[str]) -> None:
    # `if-empty` does not count what is unacked.
    system = System(
        "cancel, and then give back: meanwhile the lane is deleted",
        (0, 0),
        Budget(deletes=1),
        rows=False,
        quantum=1,
        contract=Contract(gives_back_in_one_breath=False),
    )
    violation = found(system, Liveness.STUCK, "not ended", capsys)
    assert any("is deleted" in name for name in violation.trace)


@pytest.mark.parametrize(
    ("kind", "jobs", "budget"),
    [
        (Broken.OVERLAP, (0,), Budget(faults=1, cuts=1)),
        (Broken.OVERLAP, (0,), Budget(faults=1, stops=1)),
        (Broken.ORDER, (0, 0), Budget(faults=1, reorders=1, shutdowns=1)),
    ],
    ids=["connection lost", "stopped", "broker reorders"],
)
def test_the_known_limits_without_rows(kind: Broken, jobs: tuple[int, ...], budget: Budget) -> None:
    system = System("no rows, and a fault that needs them", jobs, budget, rows=False, quick="PR")
    violation = check(system).violation
    assert violation is not None
    assert violation.kind is kind
    assert check(replace(system, rows=True)).violation is None


def test_the_known_limit_of_seats_without_rows() -> None:
    # Both workers look, both see a seat free, both consume: of a lane with several seats none stands by.
    system = System("three seats of two", (0, 0, 0), Budget(), TWO_SEATS, rows=False, slots=2, concurrency=2, quick="P")
    violation = check(system).violation
    assert violation is not None
    assert violation.kind is Broken.ORDER
    assert check(replace(system, rows=True, quick="PR")).violation is None


# -- turns ------------------------------------------------------------------------------------------------


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
