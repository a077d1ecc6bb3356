"""The relay and the operator: due, unpublished and lost rows; lost workers; parked jobs; lanes that nobody serves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from jq_actors.job import JobState
from jq_actors.protocol import owner_is_lost
from tests.simulation.state import NOBODY

from .changes import forget_dead, with_row
from .publishing import depth_of, offered, taken
from .rows import owner_of, queued_again, released, taken_from_owner
from .state import OPERATOR, RELAY, Due, Row, State, copies_of
from .system import Step, System
from .view import NOW, unfinished


def take(system: System, state: State) -> Iterator[Step]:
    """Of a group the relay takes the first row that has to be published, and one that is due."""
    for group in _groups(system):
        rows = unfinished(system, state, group)
        unpublished = (index for index, row in rows if _is_unpublished(row))
        for index in list(unpublished)[:1]:
            row = state.jobs[index].row
            assert row is not None
            leased = with_row(state, index, replace(row, publisher=RELAY))
            yield Step(f"the relay takes J{index + 1}, unpublished", taken(system, leased, RELAY, index))
        for index, row in rows:
            if row.state is JobState.RETRYING and row.due is Due.NOW:
                yield from _take_due(system, state, index, row)


def _is_unpublished(row: Row) -> bool:
    return row.state is JobState.QUEUED and not row.published and row.publisher == NOBODY


def _take_due(system: System, state: State, index: int, row: Row) -> Iterator[Step]:
    """One that keeps its turn only if nobody has a delivery of its group to run it by, or is slow with it."""
    lane = system.jobs[index]
    in_hand = any(hand for w in state.workers for s in w.servings if s.lane == lane for hand in s.hand)
    wrongly = row.keeps_turn and in_hand
    budget = state.budget.spend("false_alarms") if wrongly else state.budget
    if budget is not None:
        queued = taken(system, queued_again(state, index, RELAY), RELAY, index)
        name = f"the relay takes J{index + 1}, due{', too early' if wrongly else ''}"
        yield Step(name, replace(queued, budget=budget), wrongly)


def recover(system: System, state: State) -> Iterator[Step]:
    """The running jobs of lost workers are given back."""
    for index, job in enumerate(state.jobs):
        if job.row is not None and job.row.state is JobState.RUNNING and owner_is_lost(owner_of(state, job.row), NOW):
            recovered = forget_dead(taken_from_owner(state, index))
            yield Step(f"the relay recovers J{index + 1} from {job.row.owner}", recovered)


def release(system: System, state: State) -> Iterator[Step]:
    """Parked jobs whose reason is gone, where the settling of another job has not seen it."""
    for group in _groups(system):
        after = released(system, state, group)
        if after is not state:
            yield Step(f"the relay releases what is parked in {group}", after)


def find_still_groups(system: System, state: State) -> Iterator[Step]:
    """The head was published, and does not move: nobody serves its lane, or the lane has lost it."""
    for group in _groups(system) if system.finds_still_groups else ():
        index, row = next(iter(unfinished(system, state, group)), (0, None))
        if row is None or row.state is not JobState.QUEUED or not row.published or group in state.paused:
            continue
        lane, depth = system.jobs[index], depth_of(state, system.jobs[index])
        busy = {item.lane for item in state.publishing} | {item.lane for item in state.lobby}
        busy |= {ghost.lane for ghost in state.ghosts}
        busy |= {serving.lane for worker in state.workers for serving in worker.servings}
        if lane in busy:
            continue
        if depth is not None and depth.ready:
            yield Step(f"the relay offers L{lane + 1}, which stands still", offered(system, state, RELAY, lane))
        elif not copies_of(state, index):
            leased = with_row(state, index, replace(row, publisher=RELAY))
            yield Step(f"the relay takes J{index + 1}, lost", taken(system, leased, RELAY, index))


def time_passes(system: System, state: State) -> Iterator[Step]:
    """A retrying job becomes due."""
    for index, job in enumerate(state.jobs):
        if job.row is not None and job.row.due is not Due.NOW:
            yield Step(f"J{index + 1} is due", with_row(state, index, replace(job.row, due=Due.NOW)))


def pause(system: System, state: State) -> Iterator[Step]:
    """An operator pauses a group, and resumes it some day: then he offers the lanes that have unfinished jobs."""
    for group in _groups(system):
        if group not in state.paused:
            if system.rows and (budget := state.budget.spend("pauses")):
                paused = tuple(sorted((*state.paused, group)))
                yield Step(f"{group} is paused", replace(state, paused=paused, budget=budget))
            continue
        resumed = replace(state, paused=tuple(other for other in state.paused if other != group))
        lanes = {system.jobs[index] for index, _ in unfinished(system, state, group)}
        for lane in sorted(lanes) if system.contract.resume_offers else ():
            resumed = offered(system, resumed, OPERATOR, lane)
        yield Step(f"{group} is resumed", resumed)


def replay(system: System, state: State) -> Iterator[Step]:
    """An operator retries a failed job: it is queued again, in its old place."""
    for index, job in enumerate(state.jobs):
        if job.row is not None and job.row.state is JobState.FAILED and (budget := state.budget.spend("replays")):
            yield Step(f"J{index + 1} is retried by an operator", replace(queued_again(state, index), budget=budget))


def offer_unhandled(system: System, state: State) -> Iterator[Step]:
    """A worker has come that knows the actor."""
    for index, job in enumerate(state.jobs):
        if job.row is not None and job.row.state is JobState.UNHANDLED:
            yield Step(f"the relay offers J{index + 1} again", queued_again(state, index))


def cancel(system: System, state: State) -> Iterator[Step]:
    """An operator cancels a job that does not run. What has waited for it may go on."""
    for index, job in enumerate(state.jobs):
        if job.row is None or job.row.state.is_final or job.row.state is JobState.RUNNING:
            continue
        if budget := state.budget.spend("cancels"):
            after = replace(with_row(state, index, Row(JobState.CANCELLED, job.row.dispatch)), budget=budget)
            if system.contract.cancel_offers:
                after = offered(system, after, OPERATOR, system.jobs[index])
            yield Step(f"J{index + 1} is cancelled", after)


def _groups(system: System) -> list[str]:
    return list(dict.fromkeys(plan.group for plan in system.lanes)) if system.rows else []
