"""The model: a system with every rule there is, as the explorer wants it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from . import properties, publishing, relaying, working, world
from .properties import Broken
from .state import State, describe
from .system import Rule, Step, System

RULES: tuple[Rule, ...] = (
    publishing.send,
    publishing.publish,
    publishing.mark,
    publishing.publish_lease_ends,
    working.receive,
    working.put_down,
    working.claim,
    working.run,
    working.ack_early,
    working.settle,
    working.forget,
    working.finish,
    working.drain,
    relaying.take,
    relaying.recover,
    relaying.give_back,
    relaying.offer_unhandled,
    relaying.prune,
    world.lease_ends,
    world.heartbeat,
    world.grace_ends,
    world.broker_misses_heartbeats,
    publishing.producer_dies,
    world.crash,
    world.cut,
    world.stop,
    world.resume,
    world.wipe,
    world.outage,
    world.duplicate,
)
"""Those of groups are a model of their own: `lanes`."""


@dataclass(frozen=True, slots=True)
class ClaimModel:
    """The claim, hold, settle, second copy, crash and lease protocol of one small system."""

    system: System

    def initial(self) -> State:
        return self.system.initial()

    def steps(self, state: State) -> Iterator[Step]:
        for rule in RULES:
            for step in rule(self.system, state):
                if not step.state.publishing:
                    yield step
                else:
                    yield step._replace(state=publishing.without_idle_marks(self.system, step.state))

    def broken_in(self, state: State) -> Iterator[tuple[Broken, str]]:
        return properties.broken_in(self.system, state)

    def broken_by_step(self, before: State, after: State) -> Iterator[tuple[Broken, str]]:
        return properties.broken_by_step(self.system, before, after)

    def unfinished_in(self, state: State) -> str | None:
        return properties.unfinished_in(self.system, state)

    def describe(self, state: State) -> str:
        return describe(state)
