"""Groups hold: in no system a property is broken, and every fair run ends all jobs and forgets no lane."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache

import pytest

from tests.simulation.budget import Budget
from tests.simulation.explorer import explore

from .configurations import ORDERED, UNORDERED, configurations
from .model import RULES, LaneModel, check
from .state import State
from .system import Step, System


@pytest.mark.timeout(600)
@pytest.mark.parametrize("system", configurations(), ids=lambda system: system.name)
def test_it_holds(system: System) -> None:
    report = check(system)
    assert report.violation is None, str(report.violation)


@dataclass(frozen=True, slots=True)
class Watched(LaneModel):
    """Remembers which rules did something, and the names of steps."""

    rules: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)

    def steps(self, state: State) -> list[Step]:  # type: ignore[override]
        steps = []
        for rule in RULES:
            for step in rule(self.system, state):
                self.rules.add(rule.__name__)
                self.names.add(step.name)
                steps.append(step)
        return steps


@cache
def watched() -> Watched:
    everything = Watched(ORDERED[0])
    for system in ORDERED + UNORDERED:
        budget = replace(system.budget, faults=min(system.budget.faults, 1))
        explore(replace(everything, system=replace(system, jobs=system.jobs[:2], budget=budget, slots=1, quick=True)))
    for budget in (Budget(), Budget(faults=1, crashes=1), Budget(faults=1, deletes=1, extra_tokens=1)):
        explore(replace(everything, system=System("every step of everybody", (0,), budget)))
    explore(replace(everything, system=UNORDERED[2]))
    return everything


def test_every_rule_does_something() -> None:
    seen = watched()
    broken_contracts_only = {"give_back_late", "delete_lane"}
    assert seen.rules == {rule.__name__ for rule in RULES} - broken_contracts_only
    told = "\n".join(seen.names)
    for words in ("serves on", "lets go", "acks the token", "missing", "behind the others", "puts a fresh token"):
        assert words in told, words
    for words in ("is interrupted", "will be retried", "redelivered", "returned, declared", "does not delete"):
        assert words in told, words
