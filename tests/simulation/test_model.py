"""The model explores what it says: no rule is dead, no verdict and no ending is missing, the renamings are right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache

from jq_actors.model.claim_rules import Verdict
from jq_actors.model.job import TRANSITIONS, JobState

from .budget import Budget
from .changes import raise_dispatch
from .configurations import CONFIGURATIONS
from .explorer import explore
from .model import RULES, ClaimModel
from .state import Copy, Ending, Hand, Job, Row, State, Worker, fresh_token
from .system import Plan, Step, System


@dataclass(frozen=True, slots=True)
class Watched(ClaimModel):
    """Remembers which rules did something, the names of steps, and the changes of state."""

    rules: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    changes: set[tuple[JobState, JobState]] = field(default_factory=set)

    def steps(self, state: State) -> Iterator[Step]:
        for rule in RULES:
            for step in rule(self.system, state):
                self.rules.add(f"{rule.__module__}.{rule.__name__}")
                self.names.add(step.name)
                self.changes.update(_changes(state, step.state))
                yield step


def _changes(before: State, after: State) -> Iterator[tuple[JobState, JobState]]:
    for old, new in zip(before.jobs, after.jobs, strict=True):
        if old.row is not None and new.row is not None and old.row.state is not new.row.state:
            yield old.row.state, new.row.state


@cache
def watched() -> Watched:
    """What happens in the configurations, each cut down to one job and one fault."""
    everything = Watched(CONFIGURATIONS[0])
    for system in CONFIGURATIONS:
        budget = replace(system.budget, faults=min(system.budget.faults, 1), retries=min(system.budget.retries, 1))
        explore(replace(everything, system=replace(system, jobs=system.jobs[:1], budget=budget)))
    return everything


def test_every_rule_does_something_and_every_decision_is_met() -> None:
    seen = watched()
    assert seen.rules == {f"{rule.__module__}.{rule.__name__}" for rule in RULES}
    told = "\n".join(seen.names)
    # What is parked is of a group; a held delivery stays what it is, which is no step.
    for verdict in set(Verdict) - {Verdict.PARK, Verdict.HOLD}:
        assert f": {verdict}" in told, verdict
    for ending in (Ending.SUCCEEDED, Ending.RETRYING, Ending.SNOOZED, Ending.INTERRUPTED, Ending.UNHANDLED):
        assert f"as {ending}: written" in told, ending
    assert ": refused" in told
    assert "before" in told


def test_the_changes_of_state_are_those_of_this_part() -> None:
    seen = watched().changes
    assert seen <= TRANSITIONS
    running_to = {JobState.SUCCEEDED, JobState.RETRYING, JobState.QUEUED, JobState.UNHANDLED}
    assert {(JobState.RUNNING, state) for state in running_to} <= seen
    assert {(JobState.SCHEDULED, JobState.QUEUED), (JobState.RETRYING, JobState.QUEUED)} <= seen
    assert (JobState.UNHANDLED, JobState.QUEUED) in seen


def test_a_job_that_kills_its_workers_fails() -> None:
    system = System("a killer", (Plan(),), Budget(faults=2, crashes=2), victims="AB", max_crashes=2)
    seen = Watched(system)
    assert explore(seen).violation is None
    assert (JobState.RUNNING, JobState.FAILED) in seen.changes
    assert any("failed after 2 crashes" in name for name in seen.names)


def test_raising_a_dispatch_makes_every_copy_stale() -> None:
    row = Row(JobState.RETRYING, dispatch=2)
    hands = (Hand(0, 2), Hand(1, 2))
    state = State(
        jobs=(Job(sent=True, row=row), Job(sent=True, row=row)),
        workers=(Worker("A", hands=hands),),
        budget=Budget(),
        broker=(Copy(0, 1), Copy(0, 2), Copy(1, 2)),
    )
    after = raise_dispatch(state, 0)
    assert after.jobs == state.jobs
    assert after.broker == (Copy(0, 1), Copy(0, 1), Copy(1, 2))
    assert after.workers[0].hands == (Hand(0, 1), Hand(1, 2))


def test_the_first_dispatch_is_raised_to_the_second() -> None:
    job = Job(sent=True, row=Row(JobState.SCHEDULED))
    after = raise_dispatch(State((job,), (Worker("A"),), Budget(), broker=(Copy(0, 1),)), 0)
    assert after.jobs[0].row == Row(JobState.SCHEDULED, dispatch=2)
    assert after.broker == (Copy(0, 1),)


def test_a_fresh_token_is_held_by_no_run() -> None:
    hands = (Hand(0, 1, token=1), Hand(0, 1, token=3), Hand(1, 1, token=2))
    state = State((Job(), Job()), (Worker("A", hands=hands[:1]), Worker("B", hands=hands[1:])), Budget())
    assert fresh_token(state, 0) == 2
    assert fresh_token(state, 1) == 1


def test_a_budget_bounds_each_kind_and_the_sum() -> None:
    budget = Budget(faults=1, crashes=2, cuts=1, retries=1)
    once = budget.spend("crashes")
    assert once == Budget(faults=0, crashes=1, cuts=1, retries=1)
    assert once.spend("crashes") is None
    assert once.spend("cuts") is None
    assert once.spend("retries") == Budget(faults=0, crashes=1, cuts=1)
    assert budget.spend("stops") is None
