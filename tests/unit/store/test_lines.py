"""When the server has to plan a connection's statements anew."""

from __future__ import annotations

from jq_actors.store.database.lines import REPLAN_AFTER, REPLAN_USES, Plans


def test_plans_are_made_anew_after_a_while_in_which_they_were_used() -> None:
    plans, now = Plans(made_at=100.0), 100.0 + REPLAN_AFTER
    asked = [plans.are_old(now) for _ in range(REPLAN_USES + 2)]
    assert asked == [False] * REPLAN_USES + [True, False]


def test_a_connection_that_is_hardly_used_keeps_its_plans() -> None:
    plans = Plans(made_at=100.0)
    assert not any(plans.are_old(1000.0 + n) for n in range(REPLAN_USES))


def test_a_busy_connection_keeps_its_plans_for_a_while() -> None:
    plans = Plans(made_at=100.0)
    soon = 100.0 + REPLAN_AFTER / 2
    assert not any(plans.are_old(soon) for _ in range(10 * REPLAN_USES))
    assert plans.are_old(100.0 + REPLAN_AFTER)
