"""The checker is worth something: each promise of places, turns and chains, broken, is found, with a readable trace."""

from __future__ import annotations

from datetime import datetime

import pytest

from jq_actors.model.claim_rules import RowView, Verdict, judge
from jq_actors.model.group_rules import OnFailure
from jq_actors.model.job import JobState
from tests.simulation.budget import Budget

from .model import check
from .system import Contract, Decisions, Plan, System

JOB = Plan()
TWO, THREE = (JOB, JOB), (JOB, JOB, JOB)


def system(broken: Contract, jobs: tuple[Plan, ...], budget: Budget) -> System:
    return System("a promise is broken", jobs, budget, contract=broken)


PLACES = {
    "admission looks only at the places held": system(Contract(admits_only_if_none_waits=False), TWO, Budget(pauses=1)),
    "no version check": system(Contract(checks_the_version=False), TWO, Budget()),
    "a move that does not change the version": system(Contract(moves_change_the_version=False), THREE, Budget(moves=1)),
    "counting from what was seen before the lock": system(
        Contract(counts_under_the_lock=False, checks_the_version=False), TWO, Budget()
    ),
    "stuck heads are not looked at": system(Contract(looks_at_the_stuck=False), THREE, Budget(moves=1, undecodable=1)),
    "a retry that does not yield to an earlier one": system(
        Contract(yields_to_earlier_ones=False), TWO, Budget(failures=1, replays=1, retries=1)
    ),
    "a chain after a pause": system(Contract(sees_pauses=False), TWO, Budget(pauses=1)),
    "a refused settlement frees a place": system(
        Contract(frees_only_what_was_settled=False), (JOB,), Budget(1, stops=1)
    ),
    "a move does not decide anew": system(Contract(decides_on_what_it_writes=False), TWO, Budget(moves=1)),
    "an operator's retry does not decide anew": system(
        Contract(decides_on_what_it_writes=False), TWO, Budget(failures=1, replays=1)
    ),
    "a shutdown does not assign places": system(Contract(settlements_assign=False), TWO, Budget(shutdowns=1, moves=1)),
    "a retry gives its place away": system(Contract(retry_keeps_the_place=False), TWO, Budget(retries=1)),
    "a cancel forgets to free a place": system(Contract(cancel_frees_the_place=False), TWO, Budget(cancels=1)),
    "a retry is woken in a paused group": system(Contract(wake_sees_pauses=False), (JOB,), Budget(retries=1, pauses=1)),
    "a retry without a place is woken as if it had one": system(
        Contract(wake_looks_at_the_place=False), TWO, Budget(moves=1, retries=1)
    ),
    "what is set aside loses its place": system(Contract(set_aside_keeps_the_place=False), TWO, Budget(undecodable=1)),
}
CHAINS = {
    "a chain under a lease that is over": system(Contract(chains_under_own_lease=False), TWO, Budget(1, stops=1)),
    "the delivery is acked at the chain's first settlement": system(
        Contract(keeps_the_delivery=False), TWO, Budget(1, crashes=1)
    ),
    "a chain that comes back is not taken over": system(Contract(takes_over_chains=False), TWO, Budget(1, crashes=1)),
    "a chain that comes back is not held": system(Contract(holds_for_chains=False), TWO, Budget(1, crashes=1)),
    "an interrupted chain counts as published": system(
        Contract(interrupted_chain_is_unpublished=False), TWO, Budget(shutdowns=1)
    ),
    "a repeated settlement does not find its chain": system(
        Contract(repeated_settlements_find_their_chain=False, forgotten_claims_are_given_back=False),
        TWO,
        Budget(1, lost_answers=1),
    ),
    "a forgotten chain is not given back": system(
        Contract(forgotten_claims_are_given_back=False), TWO, Budget(1, errors=1)
    ),
    "what is given back counts as published": system(
        Contract(given_back_is_unpublished=False), TWO, Budget(1, errors=1, moves=1)
    ),
    "recovery frees the place": system(Contract(losses_keep_the_place=False), TWO, Budget(1, crashes=1)),
    "recovery does not assign places": system(
        Contract(recovery_assigns=False), TWO, Budget(1, crashes=1, failures=1, replays=1)
    ),
    "recovery in a paused group": system(Contract(recovery_assigns=False), TWO, Budget(1, crashes=1, pauses=1)),
    "a take-over does not assign places": system(Contract(take_over_assigns=False), TWO, Budget(1, crashes=1, moves=1)),
    "a take-over in a paused group": system(Contract(take_over_assigns=False), (JOB,), Budget(1, crashes=1, pauses=1)),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", [*PLACES, *CHAINS])
def test_a_broken_promise_is_found(name: str) -> None:
    violation = check((PLACES | CHAINS)[name]).violation
    assert violation is not None, f"{name}: the planted bug was not found"
    assert violation.trace


def test_a_failure_that_counts_twice_is_found() -> None:
    broken = Contract(counts_once=False)
    assert check(
        System("cancels the rest", TWO, Budget(failures=1), contract=broken, on_failure=OnFailure.CANCEL_REST)
    ).violation


def test_a_chain_without_a_connection_is_found() -> None:
    broken = Contract(chains_while_connected=False)
    assert check(System("goes on alone", TWO, Budget(1, cuts=1), contract=broken, prefetch=2)).violation


@pytest.mark.timeout(300)
def test_a_released_job_with_its_old_dispatch_is_found() -> None:
    broken = Contract(released_takes_next_dispatch=False)
    budget = Budget(1, moves=1, crashes=1)
    assert check(System("old dispatch", THREE, budget, contract=broken, quick="PR", quantum=1, workers="A")).violation


@pytest.mark.parametrize("budget", [Budget(pauses=1), Budget(moves=1)], ids=["pause", "move"])
def test_a_claim_that_starts_a_waiting_job_is_found(budget: Budget) -> None:
    def starts_waiting(row: RowView | None, dispatch: int, now: datetime, *, promised: bool) -> Verdict:
        if row is not None and row.state is JobState.WAITING and row.dispatch == dispatch:
            return Verdict.GRANT
        return judge(row, dispatch, now, promised=promised)

    assert check(System("starts", TWO, budget, decisions=Decisions(judge=starts_waiting))).violation
