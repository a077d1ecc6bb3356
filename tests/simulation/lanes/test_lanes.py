"""Groups hold: in no system a property is broken, and every fair run ends with all jobs final and no lane forgotten."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache

import pytest

from tests.simulation.budget import Budget
from tests.simulation.explorer import explore

from .configurations import GUARDED, SWEPT, UNGUARDED, configurations
from .model import RULES, LaneModel, check
from .state import State
from .system import Step, System


@pytest.mark.timeout(600)
@pytest.mark.parametrize("system", configurations(), ids=lambda system: system.name)
def test_it_holds(system: System) -> None:
    report = check(system)
    assert report.violation is None, str(report.violation)


@pytest.mark.parametrize("system", SWEPT, ids=lambda system: system.name)
def test_the_sweep_is_needed_for_these_faults(system: System) -> None:
    violation = check(replace(system, finds_still_groups=False)).violation
    assert violation is not None
    assert "neither token nor server" in violation.why or violation.why.endswith("is queued")


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
    everything = Watched(GUARDED[0])
    for system in GUARDED + UNGUARDED + SWEPT:
        budget = replace(system.budget, faults=min(system.budget.faults, 1))
        workers = "AB" if budget.stops or len(system.jobs) == 1 else "A"
        small = replace(system, jobs=system.jobs[:2], budget=budget, workers=workers, slots=1)
        explore(replace(everything, system=replace(small, quick=system.quick or "PR")))
    for budget in (Budget(), Budget(faults=1, crashes=1), Budget(faults=1, deletes=1, extra_tokens=1)):
        explore(replace(everything, system=System("every step of everybody", (0,), budget)))
    reorders = System("a broker that does not keep the order", (0, 0), Budget(faults=2, cuts=1, reorders=1), quick="PR")
    explore(replace(everything, system=reorders))
    crash = System("a keeper of its turn crashes", (0, 0), Budget(1, crashes=1, retries=1), workers="A", quick="PR")
    explore(replace(everything, system=crash))
    return everything


def test_every_rule_does_something_and_every_turn_is_met() -> None:
    seen = watched()
    broken_contracts_only = {"give_back_late", "delete_lane"}
    assert seen.rules == {rule.__name__ for rule in RULES} - broken_contracts_only
    told = "\n".join(seen.names)
    for words in (": turn, start", "instead", ", leave", ", park", ": drop_final", ": drop_stale", ": take_over"):
        assert words in told, words
    for words in ("serves on", "lets go", "acks the token", "missing", "behind the others", "puts a fresh token"):
        assert words in told, words
    for words in ("refused", "is interrupted", "stands still", "lost", "returned, declared"):
        assert words in told, words
