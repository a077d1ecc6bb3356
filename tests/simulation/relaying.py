"""The relay, which every worker runs: due, unpublished and missing rows; lost workers; unhandled jobs; retention."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from jq_actors.model.job import JobState

from .changes import forget_dead, with_job
from .publishing import taken
from .rows import NOW, given_back, owner_of, requeued_with_next_dispatch, taken_from_owner
from .state import NOBODY, Job, Lease, State, Status, Worker, copies_of
from .system import Step, System


def take(system: System, state: State) -> Iterator[Step]:
    """A relay takes the publish lease of a row that has to be published; it publishes one at a time."""
    for worker in _relays(system, state):
        if any(item.who == worker.letter for item in state.publishing):
            continue
        for index, job in enumerate(state.jobs):
            if job.row is not None:
                yield from _take_due(system, state, worker, index, job.row.state)
                yield from _take_unpublished(system, state, worker, index, job)
                yield from _take_missing(system, state, worker, index, job)


def _take_due(system: System, state: State, worker: Worker, index: int, row_state: JobState) -> Iterator[Step]:
    if row_state in (JobState.SCHEDULED, JobState.RETRYING):
        queued = requeued_with_next_dispatch(system, state, index, worker.letter)
        yield Step(f"{worker.letter}'s relay takes J{index + 1}, due", taken(system, queued, worker.letter, index))


def _take_unpublished(system: System, state: State, worker: Worker, index: int, job: Job) -> Iterator[Step]:
    row = job.row
    if row is not None and row.state is JobState.QUEUED and not row.published and row.publisher == NOBODY:
        leased = with_job(state, index, replace(job, row=replace(row, publisher=worker.letter)))
        yield Step(
            f"{worker.letter}'s relay takes J{index + 1}, unpublished", taken(system, leased, worker.letter, index)
        )


def _take_missing(system: System, state: State, worker: Worker, index: int, job: Job) -> Iterator[Step]:
    row = job.row
    if row is None or row.state is not JobState.QUEUED or not row.published or row.publisher != NOBODY:
        return
    copies = copies_of(state, index, row.dispatch)
    at_will = copies == 0 or copies_of(state, index, 1, 2) < system.restless_relay
    budget = state.budget if at_will else state.budget.spend("false_alarms")
    if budget is None:
        return
    if system.contract.missing_keeps_dispatch:
        leased = with_job(state, index, replace(job, row=replace(row, publisher=worker.letter)))
    else:
        leased = requeued_with_next_dispatch(system, state, index, worker.letter)
    name = f"{worker.letter}'s relay takes J{index + 1}, missing{' (wrongly)' if copies else ''}"
    yield Step(name, replace(taken(system, leased, worker.letter, index), budget=budget), budget is not state.budget)


def recover(system: System, state: State) -> Iterator[Step]:
    """The running jobs of lost workers are given back, a crash counted for each."""
    for worker in _relays(system, state):
        if worker.lease is not Lease.LIVE and system.contract.acts_under_own_lease:
            continue
        for index, job in enumerate(state.jobs):
            if job.row is None or job.row.state is not JobState.RUNNING:
                continue
            if system.decisions.owner_is_lost(owner_of(system, state, job.row, worker), NOW):
                after = with_job(state, index, taken_from_owner(system, job))
                name = f"{worker.letter}'s relay recovers J{index + 1} from {job.row.owner}"
                yield Step(name, forget_dead(after))


def give_back(system: System, state: State) -> Iterator[Step]:
    """A worker gives back what the rows say that it runs, and it does not."""
    if not system.contract.forgotten_claims_are_given_back:
        return
    for worker in _up(state):
        for index, job in enumerate(state.jobs):
            if job.row is None or job.row.owner != worker.id:
                continue
            if all(hand.job != index or hand.token != job.row.token for hand in worker.hands):
                yield Step(
                    f"{worker.id} gives J{index + 1} back, which it does not run",
                    with_job(state, index, given_back(job)),
                )


def offer_unhandled(system: System, state: State) -> Iterator[Step]:
    """A relay whose process knows the actor of an unhandled job offers it again."""
    if not system.contract.offers_unhandled_again_and_again:
        return  # only those that had joined before were offered: nothing to do
    for worker in _up(state):
        for index, job in enumerate(state.jobs):
            if job.row is None or job.row.state is not JobState.UNHANDLED:
                continue
            if worker.letter in system.jobs[index].known_to:
                offered = requeued_with_next_dispatch(system, state, index, NOBODY)
                yield Step(f"{worker.letter}'s relay offers J{index + 1} again", offered)


def prune(system: System, state: State) -> Iterator[Step]:
    """Retention deletes the rows of ended jobs."""
    if system.prunes:
        for index, job in enumerate(state.jobs):
            if job.row is not None and job.row.state.is_final:
                yield Step(f"J{index + 1} is pruned", with_job(state, index, replace(job, row=None, pruned=True)))


def _up(state: State) -> Iterator[Worker]:
    return (worker for worker in state.workers if worker.status is Status.UP)


def _relays(system: System, state: State) -> Iterator[Worker]:
    return (worker for worker in _up(state) if worker.letter in system.relays)
