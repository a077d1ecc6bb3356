"""The model of groups that are led by their rows: a system with every rule there is, as the explorer wants it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from jq_actors.job import JobState
from tests.simulation.explorer import Report, explore

from . import properties, publishing, relaying, settling, steering, working, world
from .properties import Broken
from .state import Hand, Phase, State, Worker, describe, row_of, unfinished
from .system import Rule, Step, System

RULES: tuple[Rule, ...] = (
    publishing.send,
    publishing.publish,
    publishing.mark,
    publishing.publish_lease_ends,
    working.receive,
    working.put_down,
    working.claim,
    working.end,
    working.ack_early,
    settling.settle,
    working.finish,
    working.drain,
    relaying.wake,
    relaying.publish_unpublished,
    relaying.recover,
    relaying.give_back,
    relaying.offer_unhandled,
    steering.act,
    steering.write,
    world.lease_ends,
    world.heartbeat,
    world.broker_misses_heartbeats,
    publishing.producer_dies,
    world.crash,
    world.cut,
    world.stop,
    world.resume,
    world.wipe,
    world.duplicate,
)


@dataclass(frozen=True, slots=True)
class GroupModel:
    """Admission, claims, settlements that give the turn on, the relay and the operator of one small system."""

    system: System

    def initial(self) -> State:
        return self.system.initial()

    def steps(self, state: State) -> Iterator[Step]:
        for rule in RULES:
            for step in rule(self.system, state):
                yield step._replace(state=_with_versions(self.system, state, step.state))

    def broken_in(self, state: State) -> Iterator[tuple[Broken, str]]:
        return properties.broken_in(self.system, state)

    def broken_by_step(self, before: State, after: State) -> Iterator[tuple[Broken, str]]:
        return properties.broken_by_step(self.system, before, after)

    def unfinished_in(self, state: State) -> str | None:
        return properties.unfinished_in(self.system, state)

    def describe(self, state: State) -> str:
        return describe(state)


def _with_versions(system: System, before: State, after: State) -> State:
    """What changes which jobs of a group hold places, or wait, or their order, is seen by who has looked before it."""
    changed = {g for g in range(len(after.groups)) if _version(system, before, g) != _version(system, after, g)}
    if not changed:
        return after

    def aged(hand: Hand) -> Hand:
        if hand.phase is not Phase.SETTLING or row_of(after, hand.running).group not in changed:
            return hand
        return replace(hand, look=replace(hand.look, is_current=False))

    def with_aged(worker: Worker) -> Worker:
        if all(hand.phase is not Phase.SETTLING for hand in worker.hands):
            return worker
        return replace(worker, hands=tuple(sorted(aged(hand) for hand in worker.hands)))

    return replace(after, workers=tuple(with_aged(worker) for worker in after.workers))


def _version(system: System, state: State, group: int) -> object:
    waiting = [(i, row.order) for i, row in unfinished(state, group) if row.state is JobState.WAITING]
    if not system.contract.moves_change_the_version:
        waiting = sorted((i, 0) for i, _ in waiting)
    holders = [i for i, row in unfinished(state, group) if row.has_place]
    return state.groups[group], waiting, sorted(holders)


def check(system: System) -> Report:
    """Explore ``system``; prints its size, and the violation with its trace."""
    report = explore(GroupModel(system))
    print(f"{system.name}: {report.states} states, {report.steps} steps")
    if report.violation is not None:
        print(report.violation)
    return report
