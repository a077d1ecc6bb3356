"""Changes of a state; each returns a new one. What has no order is kept sorted, so that equal states are one state."""

from __future__ import annotations

from dataclasses import replace

from .state import Ghost, Job, Lane, Publishing, Serving, State, Token, Worker


def with_job(state: State, index: int, job: Job) -> State:
    return replace(state, jobs=(*state.jobs[:index], job, *state.jobs[index + 1 :]))


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


def returned(state: State, index: int, *jobs: int, behind: bool = False) -> State:
    """The broker puts messages where they were: in front; or, ``behind``, where it does not keep the order."""
    lane = state.lanes[index]
    if not lane.exists or not jobs:
        return state
    ready = (*lane.ready, *jobs) if behind else (*jobs, *lane.ready)
    return with_lane(state, index, replace(lane, ready=ready))
