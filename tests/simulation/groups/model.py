"""The model of groups that are led by their rows: a system with every rule there is, as the explorer wants it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from jq_actors.model.job import JobState
from tests.simulation.explorer import Report, explore
from tests.simulation.state import NOBODY

from . import properties, publishing, relaying, settling, steering, working, world
from .changes import with_row
from .properties import Broken
from .state import NO_PLACE, Hand, Phase, State, Worker, describe, row_of, unfinished
from .system import Rule, Step, System

RULES: tuple[Rule, ...] = (
    publishing.send,
    publishing.publish,
    publishing.mark,
    publishing.publish_lease_ends,
    working.receive,
    working.put_down,
    working.claim,
    working.set_aside,
    working.end,
    working.ack_early,
    settling.settle,
    working.forget,
    working.finish,
    working.drain,
    working.give_back,
    relaying.wake,
    relaying.publish_unpublished,
    relaying.recover,
    relaying.offer_unhandled,
    relaying.end_gap,
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
                yield step._replace(state=_seen(self.system, state, step.state))

    def broken_in(self, state: State) -> Iterator[tuple[Broken, str]]:
        return properties.broken_in(self.system, state)

    def broken_by_step(self, before: State, after: State) -> Iterator[tuple[Broken, str]]:
        return properties.broken_by_step(self.system, before, after)

    def unfinished_in(self, state: State) -> str | None:
        return properties.unfinished_in(self.system, state)

    def describe(self, state: State) -> str:
        return describe(state)


def _seen(system: System, before: State, after: State) -> State:
    """``after``, with all that a step has done to what others have seen; without what makes no difference any more."""
    if after.publishing:
        after = publishing.without_idle_marks(system, after)
    return _without_idle_owners(_with_versions(system, before, after))


def _without_idle_owners(state: State) -> State:
    """Who ran a job last matters only to a message of it that may come back: about what that one runs of its group."""
    for index, job in enumerate(state.jobs):
        row = job.row
        if row is None or row.owner == NOBODY or row.state is JobState.RUNNING:
            continue
        if not _has_copies(state, index) or not _may_run(state, row.owner, row.group):
            state = with_row(state, index, replace(row, owner=NOBODY))
    return state


def _has_copies(state: State, index: int) -> bool:
    in_hand = any(hand.job == index for worker in state.workers for hand in worker.hands)
    return in_hand or any(copy.job == index for copy in state.broker)


def _may_run(state: State, owner: str, group: int) -> bool:
    is_alive = any(worker.id == owner for worker in state.workers)
    return is_alive or any(r.state is JobState.RUNNING and r.owner == owner for _, r in unfinished(state, group))


def _with_versions(system: System, before: State, after: State) -> State:
    """What changes which jobs of a group hold places, or wait, or their order, is seen by who has looked before it."""
    looking = {row_of(after, hand.running).group for worker in after.workers for hand in worker.hands if _looks(hand)}
    changed = {group for group in looking if _version(system, before, group) != _version(system, after, group)}
    if not changed:
        return after

    def aged(hand: Hand) -> Hand:
        if not _looks(hand) or row_of(after, hand.running).group not in changed:
            return hand
        return replace(hand, look=replace(hand.look, is_current=False))

    def with_aged(worker: Worker) -> Worker:
        return replace(worker, hands=tuple(sorted(aged(hand) for hand in worker.hands)))

    return replace(after, workers=tuple(with_aged(worker) for worker in after.workers))


def _looks(hand: Hand) -> bool:
    return hand.phase is Phase.SETTLING and hand.look.is_plain and hand.look.is_current and not hand.recorded


def _version(system: System, state: State, group: int) -> object:
    rows = [(index, row) for index, row in unfinished(state, group) if row.order != NO_PLACE]
    in_order = [(index, "holds a place" if row.has_place else row.state) for index, row in rows]
    return state.groups[group], in_order if system.contract.moves_change_the_version else sorted(in_order)


def check(system: System) -> Report:
    """Explore ``system``; prints its size, and the violation with its trace."""
    report = explore(GroupModel(system))
    print(f"{system.name}: {report.states} states, {report.steps} steps")
    if report.violation is not None:
        print(report.violation)
    return report
