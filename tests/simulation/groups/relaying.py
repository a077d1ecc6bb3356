"""The relay: due, unpublished and missing rows; lost workers; unhandled jobs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from jq_actors.job import JobState
from tests.simulation.rows import NOW
from tests.simulation.state import NOBODY, Status

from .changes import counted, forget_dead, with_job, with_row
from .places import fresh_order, given, is_locked, queued_anew, waits
from .publishing import taken
from .state import NO_PLACE, RELAY, Row, State, copies_of, row_of
from .system import Step, System
from .working import is_held, owner_of, taken_from_owner


def wake(system: System, state: State) -> Iterator[Step]:
    """A retry is due: queued in the place that it has kept, or it waits for one. A delayed job is admitted."""
    for index, row in _rows(state, JobState.RETRYING, JobState.SCHEDULED):
        if is_locked(state, row.group):
            continue
        name = f"the relay takes J{index + 1}, due"
        keeps = row.has_place or not system.contract.wake_looks_at_the_place
        if row.state is JobState.RETRYING and keeps and not _stops(system, state, row):
            queued = queued_anew(system, state, index, RELAY)
            yield Step(name, taken(system, queued, RELAY, index))
        else:
            yield Step(name, _admitted(system, state, index, row))


def _stops(system: System, state: State, row: Row) -> bool:
    return state.groups[row.group].paused and system.contract.wake_sees_pauses


def _admitted(system: System, state: State, index: int, row: Row) -> State:
    if row.order == NO_PLACE:
        state = with_row(state, index, replace(row, order=fresh_order(system, state, index, row.group)))
    after = counted(waits(system, state, index), row.group, held=-int(row.has_place), waiting=1)
    return given(system, after, row.group)


def publish_unpublished(system: System, state: State) -> Iterator[Step]:
    """A row whose publisher has died, or that was released for any relay; and one that the broker has lost."""
    for index, row in _rows(state, JobState.QUEUED):
        if row.publisher == NOBODY and not row.published:
            leased = with_row(state, index, replace(row, publisher=RELAY))
            yield Step(f"the relay takes J{index + 1}, unpublished", taken(system, leased, RELAY, index))
        elif row.publisher == NOBODY and not copies_of(state, index, row.dispatch):
            leased = with_row(state, index, replace(row, publisher=RELAY))
            yield Step(f"the relay takes J{index + 1}, missing", taken(system, leased, RELAY, index))


def recover(system: System, state: State) -> Iterator[Step]:
    """The running jobs of lost workers are taken from them, under their groups' locks."""
    contract = system.contract
    for index, row in _rows(state, JobState.RUNNING):
        if not is_locked(state, row.group) and system.decisions.owner_is_lost(owner_of(state, row), NOW):
            after = taken_from_owner(
                system, state, index, sees_pauses=contract.recovery_sees_pauses, assigns=contract.recovery_assigns
            )
            name = f"the relay recovers J{index + 1} from {row.owner}: {row_of(after, index).state}"
            yield Step(name, forget_dead(after))


def give_back(system: System, state: State) -> Iterator[Step]:
    """A worker gives back what the rows say that it runs, and it does not: it never learned of the claim."""
    for worker in state.workers if system.contract.forgotten_claims_are_given_back else ():
        for index, row in _rows(state, JobState.RUNNING):
            if worker.status is Status.STOPPED or row.owner != worker.id or is_held(worker, index, row):
                continue
            queued = replace(row, state=JobState.QUEUED, token=0, owner=NOBODY, published=False)
            after = with_job(state, index, replace(state.jobs[index], row=queued, claim=0))
            if state.groups[row.group].paused and system.contract.given_back_sees_pauses:
                after = counted(waits(system, after, index), row.group, held=-1, waiting=1)
            name = f"{worker.id} gives J{index + 1} back, which it does not run"
            yield Step(name, given(system, after, row.group))


def offer_unhandled(system: System, state: State) -> Iterator[Step]:
    """A worker has come that knows the actor."""
    for index, row in _rows(state, JobState.UNHANDLED):
        if not is_locked(state, row.group):
            yield Step(f"the relay offers J{index + 1} again", _admitted(system, state, index, row))


def _rows(state: State, *states: JobState) -> Iterator[tuple[int, Row]]:
    for index, job in enumerate(state.jobs):
        if job.row is not None and job.row.state in states:
            yield index, job.row
