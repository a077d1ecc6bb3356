"""What must hold of groups: in every state, over every step, and when nothing moves any more."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from tests.simulation.state import Status

from .state import Hand, State
from .system import System


class Broken(StrEnum):
    """The kinds of violation."""

    OVERLAP = "more runs of a group at once than it may have"
    ORDER = "a job started before an earlier one of its group had ended"


def broken_by_step(system: System, before: State, after: State) -> Iterator[tuple[Broken, str]]:
    """What a step did wrong."""
    if system.at_once or system.overlaps:
        return
    for index in _running(after) - _running(before):
        group = system.group_of(index)
        jobs = ((other, before.jobs[other]) for other in system.members(group) if other < index)
        earlier = [other for other, job in jobs if job.sent and not job.is_over]
        if len(earlier) >= system.concurrency:
            yield Broken.ORDER, f"J{index + 1} of {group} started before J{earlier[0] + 1} had ended"


def _running(state: State) -> set[int]:
    return {hand.job for hand in _runs(state)}


def _runs(state: State) -> Iterator[Hand]:
    for worker in state.workers:
        yield from (hand for hand in worker.hands if hand.running)


def broken_in(system: System, state: State) -> Iterator[tuple[Broken, str]]:
    """What is wrong in a state."""
    if system.overlaps:
        return
    groups = [system.group_of(hand.job) for hand in _runs(state)]
    for group in dict.fromkeys(groups):
        if groups.count(group) > system.concurrency:
            yield Broken.OVERLAP, f"{groups.count(group)} runs of {group}"


def unfinished_in(system: System, state: State) -> str | None:
    """What is left to do in a state in which nothing moves; ``None``: all is done."""
    served = {s.lane for w in state.workers if w.status is not Status.STOPPED for s in w.servings}
    offered = {token.lane for token in state.lobby}
    for index, lane in enumerate(state.lanes):
        # What is left of a job that is over, or that was never accepted, goes with the next that is sent.
        has_work = any(not state.jobs[job].is_over for job in lane.ready)
        if has_work and index not in served | offered:
            return f"L{index + 1} has work, and neither token nor server"
    for number, job in enumerate(state.jobs, 1):
        if not job.is_over:
            return f"J{number} is not ended"
    if served or offered or state.publishing:
        return "all jobs have ended, and tokens are left"
    return None
