"""Changes of a state; each returns a new one. What has no order is kept sorted, so that equal states are one state."""

from __future__ import annotations

from dataclasses import replace

from tests.simulation.state import Lease

from .state import Copy, Ghost, Hand, Job, Lane, Publishing, Row, Serving, State, Token, Worker


def with_job(state: State, index: int, job: Job) -> State:
    return replace(state, jobs=(*state.jobs[:index], job, *state.jobs[index + 1 :]))


def with_row(state: State, index: int, row: Row) -> State:
    return with_job(state, index, replace(state.jobs[index], row=row))


def with_lane(state: State, index: int, lane: Lane) -> State:
    return replace(state, lanes=(*state.lanes[:index], lane, *state.lanes[index + 1 :]))


def with_worker(state: State, worker: Worker) -> State:
    return replace(state, workers=tuple(worker if w.letter == worker.letter else w for w in state.workers))


def with_serving(state: State, worker: Worker, old: Serving | None, new: Serving | None) -> State:
    """``new`` instead of ``old``; without one, it ends or begins."""
    servings = list(worker.servings)
    if old is not None:
        servings.remove(old)
    if new is not None:
        servings.append(new)
    return with_worker(state, replace(worker, servings=tuple(sorted(servings))))


def with_tokens(state: State, *tokens: Token) -> State:
    return replace(state, lobby=tuple(sorted((*state.lobby, *tokens)))) if tokens else state


def without_token(state: State, token: Token) -> State:
    at = state.lobby.index(token)
    return replace(state, lobby=state.lobby[:at] + state.lobby[at + 1 :])


def with_publishing(state: State, old: Publishing | None, new: Publishing | None) -> State:
    items = list(state.publishing)
    if old is not None:
        items.remove(old)
    if new is not None:
        items.append(new)
    return replace(state, publishing=tuple(sorted(items)))


def with_ghosts(state: State, *ghosts: Ghost) -> State:
    return replace(state, ghosts=tuple(sorted((*state.ghosts, *ghosts)))) if ghosts else state


def consumed(state: State, index: int, worker_id: str) -> State:
    lane = state.lanes[index]
    return with_lane(state, index, replace(lane, consumers=(*lane.consumers, worker_id)))


def cancelled(state: State, index: int, worker_id: str) -> State:
    consumers = list(state.lanes[index].consumers)
    if worker_id in consumers:  # a lane that was deleted under its consumers, by a planted bug, has none
        consumers.remove(worker_id)
    return with_lane(state, index, replace(state.lanes[index], consumers=tuple(consumers)))


def returned(state: State, index: int, *copies: Copy, behind: bool = False) -> State:
    """The broker puts copies where they were: in front; or, ``behind``, where it does not keep the order."""
    lane = state.lanes[index]
    if not lane.exists or not copies:
        return state
    ready = (*lane.ready, *copies) if behind else (*copies, *lane.ready)
    return with_lane(state, index, replace(lane, ready=ready))


def raised(state: State, index: int) -> State:
    """The row of a job takes the next dispatch number: every copy there is turns stale."""
    row = state.jobs[index].row
    assert row is not None
    if row.dispatch == 1:
        return with_row(state, index, replace(row, dispatch=2))
    return replace(
        state,
        lanes=tuple(replace(lane, ready=tuple(_aged(copy, index) for copy in lane.ready)) for lane in state.lanes),
        publishing=tuple(sorted(replace(p, dispatch=1) if p.job == index else p for p in state.publishing)),
        ghosts=tuple(replace(g, unacked=tuple(_aged(copy, index) for copy in g.unacked)) for g in state.ghosts),
        workers=tuple(_with_aged_hands(worker, index) for worker in state.workers),
    )


def forget_dead(state: State) -> State:
    """A dead worker that owns no row any more is nothing."""
    if not state.dead:
        return state
    owners = {job.row.owner for job in state.jobs if job.row is not None}
    return replace(state, dead=tuple(entry for entry in state.dead if entry[0] in owners))


def lapsed(worker: Worker) -> Worker:
    """Its lease is over while it is stopped: what it runs may be run by another from now on."""

    def run(hand: Hand) -> Hand:
        return replace(hand, lapsed=hand.running >= 0)

    servings = (replace(serving, hand=tuple(map(run, serving.hand))) for serving in worker.servings)
    return replace(worker, lease=Lease.OVER, servings=tuple(sorted(servings)), runs=tuple(map(run, worker.runs)))


def _with_aged_hands(worker: Worker, index: int) -> Worker:
    def aged(hand: Hand) -> Hand:
        return replace(hand, dispatch=1) if hand.job == index else hand

    servings = (replace(serving, hand=tuple(map(aged, serving.hand))) for serving in worker.servings)
    return replace(worker, servings=tuple(sorted(servings)), runs=tuple(sorted(map(aged, worker.runs))))


def _aged(copy: Copy, index: int) -> Copy:
    return replace(copy, dispatch=1) if copy.job == index else copy
