"""What must hold of groups: in every state, over every step, and when nothing moves any more."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from jq_actors.job import TRANSITIONS, JobState
from tests.simulation.state import Status

from .state import NO_JOB, Hand, State
from .system import System


class Broken(StrEnum):
    """The kinds of violation."""

    TRANSITION = "a transition that does not exist"
    OVERLAP = "more runs of a group at once than it may have, and no lease had run out"
    ORDER = "a job started before an earlier one of its group had ended"
    PAUSED = "a job of a paused group started"


def broken_by_step(system: System, before: State, after: State) -> Iterator[tuple[Broken, str]]:
    """What a step did wrong."""
    if system.rows:
        yield from _wrong_changes(system, before, after)
    for index in _running(after) - _running(before):
        group = system.group_of(index)
        if group in before.paused:
            yield Broken.PAUSED, f"J{index + 1} of {group}"
        earlier = [other for other in system.members(group) if other < index and _is_before(system, before, other)]
        if len(earlier) >= system.concurrency:
            yield Broken.ORDER, f"J{index + 1} of {group} started before J{earlier[0] + 1} had ended"


def _wrong_changes(system: System, before: State, after: State) -> Iterator[tuple[Broken, str]]:
    for number, (old, new) in enumerate(zip(before.jobs, after.jobs, strict=True), 1):
        if old.row is None or new.row is None or old.row.state is new.row.state:
            continue
        if (old.row.state, new.row.state) not in TRANSITIONS:
            yield Broken.TRANSITION, f"J{number} went from {old.row.state} to {new.row.state}"


def _is_before(system: System, state: State, index: int) -> bool:
    """Whether those behind this one have to wait for it."""
    job = state.jobs[index]
    if system.overtake and job.row is not None and job.row.state is JobState.RETRYING:
        return False
    return (job.sent or system.numbered) and not job.is_over


def _running(state: State) -> set[int]:
    return {hand.running for hand in _runs(state)}


def _runs(state: State) -> Iterator[Hand]:
    for worker in state.workers:
        yield from (hand for hand in worker.hands if hand.running != NO_JOB)


def broken_in(system: System, state: State) -> Iterator[tuple[Broken, str]]:
    """What is wrong in a state."""
    groups = [system.group_of(hand.running) for hand in _runs(state) if not hand.lapsed]
    for group in dict.fromkeys(groups):
        if groups.count(group) > system.concurrency:
            yield Broken.OVERLAP, f"{groups.count(group)} runs of {group}"


def unfinished_in(system: System, state: State) -> str | None:
    """What is left to do in a state in which nothing moves; ``None``: all is done."""
    served = {s.lane for w in state.workers if w.status is not Status.STOPPED for s in w.servings}
    offered = {token.lane for token in state.lobby}
    for index, lane in enumerate(state.lanes):
        # What is left of a job that is over, or that was never accepted, goes with the next that is sent.
        has_work = any(not state.jobs[copy.job].is_over for copy in lane.ready)
        if has_work and index not in served | offered:
            return f"L{index + 1} has work, and neither token nor server"
    for number, job in enumerate(state.jobs, 1):
        if not job.is_over:
            return f"J{number} is {'not ended' if job.row is None else job.row.state}"
    if served or offered or state.publishing:
        return "all jobs are final, and tokens are left"
    return None
