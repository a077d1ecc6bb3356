"""Changes of a state; each returns a new one. What has no order is kept sorted, so that equal states are one state."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from .state import Copy, Hand, Job, Publishing, State, Worker


def with_job(state: State, index: int, job: Job) -> State:
    return replace(state, jobs=(*state.jobs[:index], job, *state.jobs[index + 1 :]))


def with_worker(state: State, worker: Worker) -> State:
    return replace(state, workers=tuple(worker if w.letter == worker.letter else w for w in state.workers))


def with_hand(state: State, worker: Worker, old: Hand, new: Hand | None) -> State:
    """``new`` instead of ``old``; ``None``: it is put down."""
    hands = list(worker.hands)
    hands.remove(old)
    if new is not None:
        hands.append(new)
    return with_worker(state, replace(worker, hands=tuple(sorted(hands))))


def with_copies(state: State, *copies: Copy) -> State:
    return replace(state, broker=tuple(sorted((*state.broker, *copies)))) if copies else state


def without_copy(state: State, copy: Copy) -> State:
    return replace(state, broker=_without(state.broker, copy))


def with_publishing(state: State, publishing: Publishing) -> State:
    return replace(state, publishing=tuple(sorted((*state.publishing, publishing))))


def without_publishing(state: State, publishing: Publishing) -> State:
    return replace(state, publishing=_without(state.publishing, publishing))


def forget_dead(state: State) -> State:
    """A dead worker that owns no row any more is nothing."""
    if not state.dead:
        return state
    owners = {job.row.owner for job in state.jobs if job.row is not None}
    return replace(state, dead=tuple(entry for entry in state.dead if entry[0] in owners))


def raise_dispatch(state: State, index: int) -> State:
    """The row of a job takes the next dispatch number: every copy there is turns stale."""
    job = state.jobs[index]
    assert job.row is not None
    if job.row.dispatch == 1:
        return with_job(state, index, replace(job, row=replace(job.row, dispatch=2)))
    return replace(
        state,
        broker=tuple(sorted(_aged(copy, index) for copy in state.broker)),
        publishing=tuple(sorted(_aged(publishing, index) for publishing in state.publishing)),
        workers=tuple(replace(w, hands=tuple(sorted(_aged(hand, index) for hand in w.hands))) for w in state.workers),
    )


_T = TypeVar("_T", Copy, Publishing, Hand)


def _aged(item: _T, index: int) -> _T:
    return replace(item, dispatch=1) if item.job == index else item


def _without(items: tuple[_T, ...], item: _T) -> tuple[_T, ...]:
    at = items.index(item)
    return items[:at] + items[at + 1 :]
