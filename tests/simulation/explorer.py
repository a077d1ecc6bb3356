"""Explores every state that a model can reach, breadth first, and then asks whether every fair run ends well.

It knows nothing of jobs: it is given a first state, the steps from a state, and the properties.
Breadth first, so that the trace of a violation is a shortest one.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

from .components import components

S = TypeVar("S", bound=Hashable)
S_co = TypeVar("S_co", bound=Hashable, covariant=True)


class Move(Protocol[S_co]):
    """A step of a model. ``fault``: it need never happen; every other one that stays possible happens some day."""

    @property
    def name(self) -> str: ...

    @property
    def state(self) -> S_co: ...

    @property
    def fault(self) -> bool: ...


class Model(Protocol[S]):
    """What is explored."""

    def initial(self) -> S: ...

    def steps(self, state: S) -> Iterable[Move[S]]: ...

    def broken_in(self, state: S) -> Iterable[tuple[StrEnum, str]]:
        """What is wrong in a state: the kind, and the sentence."""
        ...

    def broken_by_step(self, before: S, after: S) -> Iterable[tuple[StrEnum, str]]:
        """What is wrong with a step."""
        ...

    def unfinished_in(self, state: S) -> str | None:
        """What is left to do, asked of a state in which nothing moves without a fault."""
        ...

    def describe(self, state: S) -> str: ...


class Liveness(StrEnum):
    """The kinds of violation that are found when all states are known."""

    STUCK = "nothing moves any more, and not all is done"
    LIVELOCK = "a fair run without faults goes round for ever"


@dataclass(frozen=True, slots=True)
class Violation:
    """What does not hold, and the shortest way there."""

    kind: StrEnum
    why: str
    trace: tuple[str, ...]
    state: str
    cycle: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"VIOLATION: {self.kind}: {self.why}"]
        lines += [f"  {number:3}. {name}" for number, name in enumerate(self.trace, 1)]
        if self.cycle:
            lines.append("  and then, again and again:")
            lines += [f"     + {name}" for name in self.cycle]
        return "\n".join([*lines, *(f"  | {line}" for line in self.state.splitlines())])


@dataclass(frozen=True, slots=True)
class Report:
    """What an exploration found."""

    states: int
    steps: int
    violation: Violation | None


def explore(model: Model[S]) -> Report:
    """Visit every reachable state; stops at the first violation."""
    graph = _Graph(model)
    violation = graph.grow() or graph.first_stuck() or graph.first_livelock()
    return Report(len(graph.states), graph.steps, violation)


@dataclass(slots=True)
class _Graph(Generic[S]):
    """The states in the order in which they were found, each with the step that led to it."""

    model: Model[S]
    states: list[S] = field(default_factory=list)
    steps: int = 0
    _numbers: dict[S, int] = field(default_factory=dict)
    _from: list[tuple[int, str]] = field(default_factory=list)
    _moves: list[list[tuple[str, int]]] = field(default_factory=list)
    """The steps from each state that are no faults."""

    def grow(self) -> Violation | None:
        first = self.model.initial()
        self._add(first, 0, "")
        for problem in self.model.broken_in(first):
            return self._violation(0, *problem)
        for number, state in enumerate(self.states):  # the list grows while we go through it
            if violation := self._expand(number, state):
                return violation
        return None

    def _expand(self, number: int, state: S) -> Violation | None:
        moves: list[tuple[str, int]] = []
        self._moves.append(moves)
        for move in self.model.steps(state):
            self.steps += 1
            after = move.state
            for problem in self.model.broken_by_step(state, after):
                return self._violation(number, *problem, last=move.name, at=after)
            target = self._numbers.get(after)
            if target is None:
                target = self._add(after, number, move.name)
                for problem in self.model.broken_in(after):
                    return self._violation(target, *problem)
            if not move.fault and target != number:
                moves.append((move.name, target))
        return None

    def first_stuck(self) -> Violation | None:
        for number, moves in enumerate(self._moves):
            if not moves and (why := self.model.unfinished_in(self.states[number])) is not None:
                return self._violation(number, Liveness.STUCK, why)
        return None

    def first_livelock(self) -> Violation | None:
        """A set of states that a run may go round in for ever, though it takes every step that stays possible."""
        targets = [[target for _, target in moves] for moves in self._moves]
        for component in components(targets):
            if len(component) > 1 and not self._must_be_left(component):
                start = min(component)
                why = self.model.unfinished_in(self.states[start]) or "all is done"
                return self._violation(start, Liveness.LIVELOCK, why, cycle=self._cycle(start, component))
        return None

    def _must_be_left(self, component: Sequence[int]) -> bool:
        # Weak fairness: a step that is possible all the time is taken in the end. If going round never takes it,
        # going round ends. Asking this of a maximal component is enough: a part of it is easier to leave.
        inside = frozenset(component)
        always = set.intersection(*({name for name, _ in self._moves[number]} for number in component))
        taken = {name for number in component for name, target in self._moves[number] if target in inside}
        return bool(always - taken)

    def _cycle(self, start: int, component: Sequence[int]) -> tuple[str, ...]:
        """The shortest way from ``start`` back to it."""
        inside = frozenset(component)
        ways: dict[int, tuple[str, ...]] = {start: ()}
        queue: list[int] = [start]
        for number in queue:
            for name, target in self._moves[number]:
                if target == start:
                    return (*ways[number], name)
                if target in inside and target not in ways:
                    ways[target] = (*ways[number], name)
                    queue.append(target)
        raise AssertionError("a component leads back to each of its states")

    def _add(self, state: S, before: int, name: str) -> int:
        number = self._numbers[state] = len(self.states)
        self.states.append(state)
        self._from.append((before, name))
        return number

    def _violation(
        self,
        number: int,
        kind: StrEnum,
        why: str,
        *,
        last: str | None = None,
        at: S | None = None,
        cycle: tuple[str, ...] = (),
    ) -> Violation:
        trace = [*self._trace(number), *([] if last is None else [last])]
        shown = self.states[number] if at is None else at
        return Violation(kind, why, tuple(trace), self.model.describe(shown), cycle)

    def _trace(self, number: int) -> Iterator[str]:
        names: list[str] = []
        while number:
            number, name = self._from[number]
            names.append(name)
        return reversed(names)
