"""The checker is worth something: each decision and promise about lanes and tokens, broken, is found, with a trace."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

import pytest

from jq_actors.transport.port import QueueDepth
from jq_actors.transport.tokens import AfterCancel, tokens_needed
from tests.simulation.budget import Budget
from tests.simulation.explorer import Liveness, Violation

from .configurations import TWO_SEATS
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
        contract=Contract(publishes_before_it_looks=False),
    )
    violation = found(system, Liveness.STUCK, FORGOTTEN, capsys)
    assert "publishes J" in violation.trace[-1]


def test_a_producer_relies_on_those_whose_messages_it_sees(capsys: pytest.CaptureFixture[str]) -> None:
    # Two that publish at once see each other's, and each leaves the token to the other.
    def relies(lane: QueueDepth | None, published: int, seats: int) -> int:
        return 0 if lane is not None and lane.ready > published else tokens_needed(lane, published, seats)

    system = System("relying on each other", (0, 0), Budget(), at_once=True, decisions=Decisions(tokens_needed=relies))
    found(system, Liveness.STUCK, FORGOTTEN, capsys)


def test_the_token_is_acked_before_the_second_look(capsys: pytest.CaptureFixture[str]) -> None:
    system = System(
        "the token is acked when the consumer is cancelled, and the lane is served on without one",
        (0, 0),
        Budget(faults=1, crashes=1),
        contract=Contract(acks_after_the_look=False),
    )
    violation = found(system, Liveness.STUCK, FORGOTTEN, capsys)
    assert any("crashes" in name for name in violation.trace)


def lets_go_at_once(lane: QueueDepth | None) -> AfterCancel:
    return AfterCancel.LET_GO


def test_the_second_look_is_not_believed(capsys: pytest.CaptureFixture[str]) -> None:
    # What was on its way when the consumer was cancelled is in the lane again, and its sender saw it served.
    decisions = Decisions(after_cancel=lets_go_at_once)
    system = System("let go whatever is there", (0, 0), Budget(races=1), quick=True, decisions=decisions)
    found(system, Liveness.STUCK, FORGOTTEN, capsys)


def test_the_old_token_is_acked_before_the_fresh_one_is_confirmed(capsys: pytest.CaptureFixture[str]) -> None:
    system = System(
        "hand-over: ack, then the fresh token",
        (0, 0),
        Budget(faults=1, crashes=1),
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
        workers="A",
        slots=2,
        quantum=1,
        quick=True,
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
        workers="A",
        slots=3,
        concurrency=2,
        quick=True,
        decisions=Decisions(is_wanted=wants_every_lane),
    )
    found(system, Broken.ORDER, "J3 of g started before J1", capsys)


def never_looks_again(lane: QueueDepth | None, seconds: float, *, redelivered: bool) -> bool:
    return False


def test_the_dead_holder_of_a_token_is_taken_for_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    system = System(
        "a redelivered token is acked at the first look",
        (0,),
        Budget(faults=1, crashes=1),
        decisions=Decisions(looks_again=never_looks_again),
    )
    violation = found(system, Liveness.STUCK, FORGOTTEN, capsys)
    assert "learns that A1 is gone" in violation.trace[-1]


def test_a_ghost_outlasts_the_patience(capsys: pytest.CaptureFixture[str]) -> None:
    system = System(
        "the broker takes longer than GHOSTS_LAST",
        (0,),
        Budget(faults=1, crashes=1),
        contract=Contract(ghosts_do_not_last=False),
    )
    found(system, Liveness.STUCK, FORGOTTEN, capsys)


# -- what the lane alone gives ----------------------------------------------------------------------------


def test_what_is_given_back_comes_too_late(capsys: pytest.CaptureFixture[str]) -> None:
    # Another worker consumes between the cancel and the return, and gets what was behind it.
    system = System(
        "cancel, and then give back",
        (0, 0, 0),
        Budget(),
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
        quantum=1,
        contract=Contract(gives_back_in_one_breath=False, deletes_under_its_token=False),
    )
    violation = found(system, Liveness.STUCK, "not ended", capsys)
    assert any("is deleted" in name for name in violation.trace)


def test_a_lane_is_deleted_that_another_one_consumes(capsys: pytest.CaptureFixture[str]) -> None:
    # Two tokens, two consumers: the first cancels, and the second gets a message before the lane is deleted.
    system = System(
        "delete also what is consumed",
        (0, 0),
        Budget(1, extra_tokens=1, deletes=1),
        contract=Contract(deletes_if_unused=False),
    )
    violation = found(system, Broken.ORDER, "started before", capsys)  # for that one's message is gone
    assert any("deletes L1" in name for name in violation.trace)


def test_nobody_stands_in_for_who_gives_back_while_another_deletes(capsys: pytest.CaptureFixture[str]) -> None:
    # Unused and empty, but what crossed the cancel of the second one is in its hand.
    system = System(
        "cancel, and then give back: meanwhile one who has served it too deletes the lane",
        (0,),
        Budget(1, extra_tokens=1, races=1, deletes=1),
        contract=Contract(gives_back_in_one_breath=False),
    )
    violation = found(system, Liveness.STUCK, "not ended", capsys)
    assert any("deletes L1" in name for name in violation.trace)


@pytest.mark.parametrize(
    ("kind", "jobs", "budget"),
    [
        (Broken.OVERLAP, (0,), Budget(faults=1, cuts=1)),
        (Broken.OVERLAP, (0,), Budget(faults=1, stops=1)),
        (Broken.ORDER, (0, 0), Budget(faults=1, reorders=1, shutdowns=1)),
    ],
    ids=["connection lost", "stopped", "broker reorders"],
)
def test_the_known_limits(kind: Broken, jobs: tuple[int, ...], budget: Budget) -> None:
    system = System("a fault that needs rows", jobs, budget, quick=True)
    violation = check(system).violation
    assert violation is not None
    assert violation.kind is kind
    assert check(replace(system, overlaps=True)).violation is None


def test_the_known_limit_of_seats() -> None:
    # Both workers look, both see a seat free, both consume: of a lane with several seats none stands by.
    system = System("three seats of two", (0, 0, 0), Budget(), TWO_SEATS, slots=2, concurrency=2, quick=True)
    violation = check(system).violation
    assert violation is not None
    assert violation.kind is Broken.ORDER


def test_the_known_limit_of_lost_tokens() -> None:
    # Somebody takes the token that came back, sees that the lane is served, and acks it; then the server crashes.
    system = System("a worker crashes whose tokens are lost", (0,), Budget(faults=2, lobby_cuts=1, crashes=1))
    violation = check(system).violation
    assert violation is not None
    assert FORGOTTEN in violation.why
