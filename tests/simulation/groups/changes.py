"""Changes of a state; each returns a new one. What has no order is kept sorted, so that equal states are one state."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from jq_actors.model.job import JobState
from tests.simulation.state import Lease

from .state import Copy, Group, Hand, Job, Phase, Publishing, Row, State, Worker, row_of


def with_job(state: State, index: int, job: Job) -> State:
    return replace(state, jobs=(*state.jobs[:index], job, *state.jobs[index + 1 :]))


def with_row(state: State, index: int, row: Row) -> State:
    return with_job(state, index, replace(state.jobs[index], row=row))


def with_group(state: State, index: int, group: Group) -> State:
    return replace(state, groups=(*state.groups[:index], group, *state.groups[index + 1 :]))


def counted(state: State, index: int, *, held: int = 0, waiting: int = 0) -> State:
    """So many more jobs of a group hold a place, or wait: its row says so."""
    group = state.groups[index]
    return with_group(state, index, replace(group, held=group.held + held, waiting=group.waiting + waiting))


def with_worker(state: State, worker: Worker) -> State:
    return replace(state, workers=tuple(worker if w.letter == worker.letter else w for w in state.workers))


def with_hand(state: State, worker: Worker, old: Hand, new: Hand | None) -> State:
    """``new`` instead of ``old``, whose dispatch may be an older one now; ``None``: it is put down."""
    now = next(w for w in state.workers if w.letter == worker.letter)
    hands = list(now.hands)
    if old not in hands:
        old, new = replace(old, dispatch=1), None if new is None else replace(new, dispatch=1)
    hands.remove(old)
    if new is not None:
        hands.append(new)
    return with_worker(state, replace(now, hands=tuple(sorted(hands))))


def with_copies(state: State, *copies: Copy) -> State:
    return replace(state, broker=tuple(sorted((*state.broker, *copies)))) if copies else state


def without_copy(state: State, copy: Copy) -> State:
    return replace(state, broker=_without(state.broker, copy))


def with_publishing(state: State, publishing: Publishing) -> State:
    return replace(state, publishing=tuple(sorted((*state.publishing, publishing))))


def without_publishing(state: State, publishing: Publishing) -> State:
    return replace(state, publishing=_without(state.publishing, publishing))


def forget_dead(state: State) -> State:
    """A dead worker that runs nothing any more, by its rows, is nothing."""
    if not state.dead:
        return state
    rows = (job.row for job in state.jobs)
    owners = {row.owner for row in rows if row is not None and row.state is JobState.RUNNING}
    return replace(state, dead=tuple(entry for entry in state.dead if entry[0] in owners))


def raised(state: State, index: int) -> State:
    """The row of a job takes the next dispatch number: every copy there is turns stale."""
    row = row_of(state, index)
    if row.dispatch == 1:
        return with_row(state, index, replace(row, dispatch=2))
    return replace(
        state,
        broker=tuple(sorted(_aged(copy, index) for copy in state.broker)),
        publishing=tuple(sorted(_aged(publishing, index) for publishing in state.publishing)),
        workers=tuple(replace(w, hands=tuple(sorted(_aged(hand, index) for hand in w.hands))) for w in state.workers),
    )


def lapsed(worker: Worker) -> Worker:
    """Its lease is over while it is stopped: what it runs may be run by another from now on."""
    begun = (Phase.RUNNING, Phase.SETTLING)
    hands = (replace(hand, lapsed=True) if hand.phase in begun else hand for hand in worker.hands)
    return replace(worker, lease=Lease.OVER, hands=tuple(sorted(hands)))


_T = TypeVar("_T", Copy, Publishing, Hand)


def _aged(item: _T, index: int) -> _T:
    return replace(item, dispatch=1) if item.job == index else item


def _without(items: tuple[_T, ...], item: _T) -> tuple[_T, ...]:
    at = items.index(item)
    return items[:at] + items[at + 1 :]
