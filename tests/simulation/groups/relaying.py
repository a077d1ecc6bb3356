"""The relay: due, unpublished and missing rows; lost workers; unhandled jobs; numbers that do not come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from jq_actors.model.job import JobState
from tests.simulation.rows import NOW
from tests.simulation.state import NOBODY

from .changes import counted, forget_dead, with_group, with_row
from .losses import owner_of, taken_from_owner
from .places import fresh_order, given, is_locked, queued_anew, ranked, waits
from .publishing import taken
from .state import NO_PLACE, RELAY, Row, State, copies_of, group_name, row_of, unfinished
from .system import Step, System


def wake(system: System, state: State) -> Iterator[Step]:
    """A retry is due: queued in the place that it has kept, or it waits for one. A delayed job is admitted."""
    for index, row in _rows(state, JobState.RETRYING, JobState.SCHEDULED):
        if is_locked(state, row.group):
            continue
        name = f"the relay takes J{index + 1}, due"
        keeps = row.has_place or not system.contract.wake_looks_at_the_place
        stops = state.groups[row.group].paused and system.contract.wake_sees_pauses
        if row.state is JobState.RETRYING and keeps and not stops:
            queued = queued_anew(system, state, index, RELAY)
            yield Step(name, taken(system, queued, RELAY, index))
        elif row.has_place:
            yield Step(name, _waiting(system, state, index))
        else:
            yield Step(name, given(system, _waiting(system, state, index), row.group))


def _waiting(system: System, state: State, index: int) -> State:
    """It gives up its place, if it has one, and waits where it is in the order; or at the end."""
    row = row_of(state, index)
    if row.order == NO_PLACE:
        order = fresh_order(system, state, index, row.group)
        state = ranked(system, with_row(state, index, replace(row, order=order)))
    return counted(waits(system, state, index), row.group, held=-int(row.has_place), waiting=1)


def publish_unpublished(system: System, state: State) -> Iterator[Step]:
    """A row whose publisher has died, or that was released for any relay; and one that the broker has lost."""
    for index, row in _rows(state, JobState.QUEUED):
        if row.publisher == NOBODY and not row.published:
            leased = with_row(state, index, replace(row, publisher=RELAY))
            yield Step(f"the relay takes J{index + 1}, unpublished", taken(system, leased, RELAY, index))
        elif row.publisher == NOBODY and not copies_of(state, index, row.dispatch):
            leased = with_row(state, index, replace(row, published=False, publisher=RELAY))
            yield Step(f"the relay takes J{index + 1}, missing", taken(system, leased, RELAY, index))


def recover(system: System, state: State) -> Iterator[Step]:
    """The running jobs of lost workers are taken from them, under their groups' locks."""
    for index, row in _rows(state, JobState.RUNNING):
        if not is_locked(state, row.group) and system.decisions.owner_is_lost(owner_of(state, row), NOW):
            after = taken_from_owner(system, state, index, assigns=system.contract.recovery_assigns)
            name = f"the relay recovers J{index + 1} from {row.owner}: {row_of(after, index).state}"
            yield Step(name, forget_dead(after))


def offer_unhandled(system: System, state: State) -> Iterator[Step]:
    """A worker has come that knows the actor: in its place, or it waits."""
    for index, row in _rows(state, JobState.UNHANDLED):
        if is_locked(state, row.group):
            continue
        goes_on = row.has_place and not state.groups[row.group].paused
        after = queued_anew(system, state, index) if goes_on else _waiting(system, state, index)
        yield Step(f"the relay offers J{index + 1} again", given(system, after, row.group))


def end_gap(system: System, state: State) -> Iterator[Step]:
    """A number did not come in time: the group goes on without it."""
    for group, row in enumerate(state.groups) if system.gaps_end else ():
        open_ = [(i, r) for i, r in unfinished(state, group) if r.state is not JobState.RUNNING]
        if row.paused or row.next_position is None or not open_ or is_locked(state, group):
            continue
        index, head = open_[0]
        position = system.jobs[index].position
        if head.state is JobState.WAITING and position is not None and position > row.next_position:
            after = with_group(state, group, replace(row, next_position=position))
            yield Step(f"{group_name(group)} does not wait for {row.next_position}", given(system, after, group))


def _rows(state: State, *states: JobState) -> Iterator[tuple[int, Row]]:
    for index, job in enumerate(state.jobs):
        if job.row is not None and job.row.state in states:
            yield index, job.row
