"""What must hold of groups: in every state, which is what some commit has left, over every step, and in the end."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from jq_actors.model.job import TRANSITIONS, JobState
from tests.simulation.state import Status, Tag

from .places import decided, is_locked
from .state import Group, Phase, Row, State, copies_of, group_name, row_of, unfinished
from .system import System


class Broken(StrEnum):
    """The kinds of violation."""

    TRANSITION = "a transition that does not exist"
    OVERLAP = "more runs at once than there may be, and no lease had run out"
    ORDER = "a job started before an earlier one of its group had ended"
    PAUSED = "a job of a paused group started"
    COUNTS = "a group's row does not say what the rows of its jobs say"
    PLACES = "a commit has left places of a group to the wrong jobs, or to none"
    STRAY_WRITE = "a run that had lost its claim wrote an outcome"
    LAST_COPY_GONE = "a job counts as published, and nobody has a copy"
    UNSAFE_RUN = "a job runs, and no message would come back if its worker died"


_HOLDERS = frozenset({JobState.QUEUED, JobState.RUNNING})


def broken_by_step(system: System, before: State, after: State) -> Iterator[tuple[Broken, str]]:
    """What a step did wrong."""
    for index, (old, new) in enumerate(zip(before.jobs, after.jobs, strict=True)):
        if old.row is None or new.row is None or old is new:
            continue
        change = (old.row.state, new.row.state)
        if change[0] is not change[1] and change not in TRANSITIONS:
            yield Broken.TRANSITION, f"J{index + 1} went from {change[0]} to {change[1]}"
    for index in _begun(before, after):
        yield from _wrong_start(system, before, after, index)


def _begun(before: State, after: State) -> Iterator[int]:
    for index, (old, new) in enumerate(zip(before.jobs, after.jobs, strict=True)):
        if new.claim and (new.claim != old.claim or old.row is None or old.row.owner != _owner(new.row)):
            yield index


def _owner(row: Row | None) -> str:
    return "" if row is None else row.owner


def _wrong_start(system: System, before: State, after: State, index: int) -> Iterator[tuple[Broken, str]]:
    row = after.jobs[index].row
    assert row is not None
    name = f"J{index + 1} of {group_name(row.group)}"
    if before.groups[row.group].paused:
        yield Broken.PAUSED, name
    earlier = [i for i, other in unfinished(after, row.group) if other.order < row.order]
    if system.overtake:
        earlier = [i for i in earlier if row_of(after, i).state is not JobState.RETRYING]
    if len(earlier) >= system.concurrency:
        yield Broken.ORDER, f"{name} started before J{earlier[0] + 1}"
    position = system.jobs[index].position
    sent = {plan.position for plan, job in zip(system.jobs, after.jobs, strict=True) if job.sent}
    if position is not None and not set(range(1, position)) <= sent and not system.gaps_end:
        yield Broken.ORDER, f"{name} started before an earlier number was sent"


def broken_in(system: System, state: State) -> Iterator[tuple[Broken, str]]:
    """What is wrong in a state."""
    yield from _overlaps(system, state)
    for index, job in enumerate(state.jobs):
        if job.strays:
            yield Broken.STRAY_WRITE, f"J{index + 1}"
        row = job.row
        if row is not None and row.state is JobState.QUEUED and row.published and not job.excused:
            coming = any(p.job == index and p.dispatch == row.dispatch and not p.confirmed for p in state.publishing)
            if not coming and not copies_of(state, index, row.dispatch):
                yield Broken.LAST_COPY_GONE, f"J{index + 1}"
        if (
            row is not None
            and row.state is JobState.RUNNING
            and system.is_prompt
            and not _comes_back(state, index, row)
        ):
            yield Broken.UNSAFE_RUN, f"J{index + 1} in {row.owner}"
    for number, group in enumerate(state.groups):
        if not is_locked(state, number):
            yield from _counts(state, number, group)
            yield from _places(system, state, number, group)


def _comes_back(state: State, index: int, row: Row) -> bool:
    """Whether its worker has a message unacked for it, or the broker one that leads to it: its own, or its chain's."""
    if copies_of(state, index, row.dispatch):
        return True
    every = [hand for worker in state.workers for hand in worker.hands]
    hands = [hand for hand in every if hand.tag is Tag.UNACKED]
    if any(hand.running == index and hand.token == row.token and (hand.exposed or hand in hands) for hand in every):
        return True
    others = [hand.job for hand in hands if hand.phase is Phase.RECEIVED and hand.redelivered]
    others += [copy.job for copy in state.broker if copy.redelivered]
    return any(other.owner == row.owner for job in others if (other := state.jobs[job].row) is not None)


def _overlaps(system: System, state: State) -> Iterator[tuple[Broken, str]]:
    hands = (hand for worker in state.workers for hand in worker.hands)
    runs = [hand.running for hand in hands if hand.phase is Phase.RUNNING and not hand.lapsed]
    if len(set(runs)) < len(runs):
        yield Broken.OVERLAP, f"one job runs {len(runs)} times"
    for number in range(len(state.groups)):
        of_group = [i for i in runs if (row := state.jobs[i].row) is not None and row.group == number]
        if len(of_group) > system.concurrency:
            yield Broken.OVERLAP, f"{len(of_group)} runs of {group_name(number)}"


def _counts(state: State, number: int, group: Group) -> Iterator[tuple[Broken, str]]:
    rows = [(i, job.row) for i, job in enumerate(state.jobs) if job.row is not None and job.row.group == number]
    held, waiting = sum(row.has_place for _, row in rows), sum(row.state is JobState.WAITING for _, row in rows)
    if (held, waiting) != (group.held, group.waiting):
        why = f"{held} hold a place and {waiting} wait, {group.held} and {group.waiting} are counted"
        yield Broken.COUNTS, f"{group_name(number)}: {why}"
    for index, row in rows:
        must, may = row.state in _HOLDERS, row.state in (*_HOLDERS, JobState.RETRYING, JobState.UNHANDLED)
        if row.has_place < must or row.has_place > may:
            yield Broken.COUNTS, f"J{index + 1} is {row.state}, and holds {'a' if row.has_place else 'no'} place"


def _places(system: System, state: State, number: int, group: Group) -> Iterator[tuple[Broken, str]]:
    """Nothing is left to be done; while it is paused, places that block it may wait for the resume."""
    places = decided(system, state, number)
    if places.next_position != group.next_position:
        yield (
            Broken.PLACES,
            f"{group_name(number)} goes on with {places.next_position}, its row says {group.next_position}",
        )
    wrong = (*places.released, *places.withdrawn)
    if not group.paused:
        wrong = (*wrong, *places.kept_back, *places.passed)
    if wrong:
        jobs = ", ".join(f"J{int(member.job_id) + 1}, {member.state}" for member in wrong)
        yield Broken.PLACES, f"{group_name(number)}: {jobs}"


def unfinished_in(system: System, state: State) -> str | None:
    """What is left to do in a state in which nothing moves; ``None``: all is done, or waits for a missing number."""
    gap = next((plan.position for plan in system.jobs if plan.withheld), None)
    for number, (plan, job) in enumerate(zip(system.jobs, state.jobs, strict=True), 1):
        behind = gap is not None and plan.position is not None and plan.position > gap
        if not job.is_over and not plan.withheld and not behind:
            return f"J{number} is {'nowhere' if job.row is None else job.row.state}"
    if state.broker or any(w.hands for w in state.workers if w.status is not Status.STOPPED) or state.publishing:
        return "all jobs are final, and messages are left"
    return None
