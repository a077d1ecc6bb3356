"""The model of groups: a system with every rule there is, as the explorer wants it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.simulation.explorer import Report, explore

from . import properties, publishing, relaying, serving, working, world
from .properties import Broken
from .state import State, describe
from .system import Rule, Step, System

RULES: tuple[Rule, ...] = (
    publishing.send,
    publishing.publish,
    publishing.look,
    publishing.put_tokens,
    publishing.publish_lease_ends,
    serving.take_token,
    serving.attach,
    working.receive,
    working.claim,
    working.end,
    working.drain,
    serving.drained,
    serving.delete,
    serving.leave,
    serving.give_back_late,
    serving.hand_over,
    relaying.take,
    relaying.recover,
    relaying.release,
    relaying.find_still_groups,
    relaying.time_passes,
    relaying.pause,
    relaying.replay,
    relaying.cancel,
    relaying.offer_unhandled,
    world.broker_notices,
    world.lease_ends,
    world.heartbeat,
    world.broker_misses_heartbeats,
    world.delete_lane,
    publishing.producer_dies,
    world.crash,
    world.cut,
    world.lobby_cut,
    world.stop,
    world.resume,
    world.wipe,
    world.duplicate,
)


@dataclass(frozen=True, slots=True)
class LaneModel:
    """Lanes, lobby, tokens and the order guard of one small system."""

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
