"""The model of groups without rows: a system with every rule there is, as the explorer wants it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.simulation.explorer import Report, explore

from . import properties, publishing, serving, working, world
from .properties import Broken
from .state import State, describe
from .system import Rule, Step, System

RULES: tuple[Rule, ...] = (
    publishing.send,
    publishing.publish,
    publishing.look,
    publishing.put_tokens,
    serving.take_token,
    serving.attach,
    working.receive,
    working.start,
    working.end,
    working.drain,
    serving.drained,
    serving.delete,
    serving.give_back_late,
    serving.hand_over,
    world.broker_notices,
    world.broker_misses_heartbeats,
    world.delete_lane,
    publishing.producer_dies,
    world.crash,
    world.cut,
    world.lobby_cut,
    world.stop,
    world.resume,
    world.duplicate,
)


@dataclass(frozen=True, slots=True)
class LaneModel:
    """Lanes, lobby and tokens of one small system."""

    system: System

    def initial(self) -> State:
        return self.system.initial()

    def steps(self, state: State) -> Iterator[Step]:
        for rule in RULES:
            yield from rule(self.system, state)

    def broken_in(self, state: State) -> Iterator[tuple[Broken, str]]:
        return properties.broken_in(self.system, state)

    def broken_by_step(self, before: State, after: State) -> Iterator[tuple[Broken, str]]:
        return properties.broken_by_step(self.system, before, after)

    def unfinished_in(self, state: State) -> str | None:
        return properties.unfinished_in(self.system, state)

    def describe(self, state: State) -> str:
        return describe(state)


def check(system: System) -> Report:
    """Explore ``system``; prints its size, and the violation with its trace."""
    report = explore(LaneModel(system))
    print(f"{system.name}: {report.states} states, {report.steps} steps")
    if report.violation is not None:
        print(report.violation)
    return report
