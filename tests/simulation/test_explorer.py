"""The explorer itself, on models small enough to see through."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

import pytest

from .components import components
from .explorer import Liveness, explore


class Bad(StrEnum):
    STATE = "a bad state"
    STEP = "a bad step"


class Edge(NamedTuple):
    name: str
    state: str
    fault: bool = False


@dataclass(frozen=True)
class Graph:
    """States are letters, steps are given; it starts at ``a``."""

    edges: Mapping[str, list[Edge]]
    done: str = ""
    bad_states: str = ""
    bad_steps: frozenset[str] = field(default_factory=frozenset)

    def initial(self) -> str:
        return "a"

    def steps(self, state: str) -> Iterable[Edge]:
        return self.edges.get(state, [])

    def broken_in(self, state: str) -> Iterator[tuple[StrEnum, str]]:
        if state in self.bad_states:
            yield Bad.STATE, f"it is {state}"

    def broken_by_step(self, before: str, after: str) -> Iterator[tuple[StrEnum, str]]:
        if before + after in self.bad_steps:
            yield Bad.STEP, f"from {before} to {after}"

    def unfinished_in(self, state: str) -> str | None:
        return None if state in self.done else f"{state} is not the end"

    def describe(self, state: str) -> str:
        return f"state {state}"


def test_it_visits_every_state_once() -> None:
    graph = Graph({"a": [Edge("1", "b"), Edge("2", "c")], "b": [Edge("3", "d")], "c": [Edge("4", "d")]}, done="d")
    report = explore(graph)
    assert (report.states, report.steps, report.violation) == (4, 4, None)


def test_the_trace_of_a_bad_state_is_a_shortest_one() -> None:
    long_way = {"a": [Edge("far", "b"), Edge("near", "c")], "b": [Edge("b-c", "d")], "d": [Edge("d-e", "e")]}
    violation = explore(Graph(long_way | {"c": [Edge("c-e", "e")]}, bad_states="e")).violation
    assert violation is not None
    assert violation.kind is Bad.STATE
    assert violation.trace == ("near", "c-e")
    assert str(violation).splitlines() == [
        "VIOLATION: a bad state: it is e",
        "    1. near",
        "    2. c-e",
        "  | state e",
    ]


def test_a_bad_first_state_has_no_trace() -> None:
    violation = explore(Graph({}, bad_states="a")).violation
    assert violation is not None
    assert violation.trace == ()


def test_a_bad_step_between_good_states_is_found() -> None:
    edges = {"a": [Edge("1", "b"), Edge("2", "c")], "b": [Edge("3", "c")]}
    violation = explore(Graph(edges, done="c", bad_steps=frozenset({"bc"}))).violation
    assert violation is not None
    assert (violation.kind, violation.trace, violation.state) == (Bad.STEP, ("1", "3"), "state c")


def test_an_end_that_is_not_the_end_is_found() -> None:
    violation = explore(Graph({"a": [Edge("1", "b"), Edge("2", "c")]}, done="b")).violation
    assert violation is not None
    assert (violation.kind, violation.why, violation.trace) == (Liveness.STUCK, "c is not the end", ("2",))


def test_a_fault_does_not_help_out_of_a_dead_end() -> None:
    violation = explore(Graph({"a": [Edge("luck", "b", fault=True)]}, done="b")).violation
    assert violation is not None
    assert (violation.kind, violation.trace) == (Liveness.STUCK, ())


def test_a_step_that_changes_nothing_does_not_help_either() -> None:
    violation = explore(Graph({"a": [Edge("look again", "a")]})).violation
    assert violation is not None
    assert violation.kind is Liveness.STUCK


def test_going_round_is_found_when_nothing_else_stays_possible() -> None:
    # `out` is possible in b only: whoever is fair may miss it every time.
    edges = {"a": [Edge("there", "b")], "b": [Edge("back", "a"), Edge("out", "c")]}
    violation = explore(Graph(edges, done="c")).violation
    assert violation is not None
    assert (violation.kind, violation.cycle) == (Liveness.LIVELOCK, ("there", "back"))
    assert "again and again" in str(violation)


def test_going_round_ends_when_another_step_stays_possible() -> None:
    edges = {"a": [Edge("there", "b"), Edge("out", "c")], "b": [Edge("back", "a"), Edge("out", "c")]}
    assert explore(Graph(edges, done="c")).violation is None


def test_going_round_by_faults_is_no_livelock() -> None:
    edges = {"a": [Edge("there", "b", fault=True), Edge("out", "c")], "b": [Edge("back", "a")]}
    assert explore(Graph(edges, done="c")).violation is None


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ([[]], [{0}]),
        ([[1], [0]], [{0, 1}]),
        ([[1], [2], []], [{0}, {1}, {2}]),
        ([[1], [2], [0, 3], [4], [3], [5]], [{0, 1, 2}, {3, 4}, {5}]),
        ([[1, 2], [3], [3], [0], [0]], [{0, 1, 2, 3}, {4}]),
    ],
)
def test_components(targets: list[list[int]], expected: list[set[int]]) -> None:
    assert sorted(map(sorted, components(targets))) == sorted(map(sorted, expected))


def test_components_of_a_long_path() -> None:
    length = 50_000
    assert sum(1 for _ in components([[node + 1] for node in range(length)] + [[]])) == length + 1
