"""What the world does: time, which always passes in the end, and faults, as often as the budget says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count

from tests.simulation.state import Status

from .changes import (
    cancelled,
    returned,
    with_ghosts,
    with_lane,
    with_serving,
    with_tokens,
    with_worker,
)
from .state import Ghost, Hand, Held, Lane, Phase, Serving, State, Token, Worker
from .system import Step, System

# -- time -------------------------------------------------------------------------------------------------


def broker_notices(system: System, state: State) -> Iterator[Step]:
    """One of the broker's queues learns that a connection is gone: its consumer too, and what was unacked returns."""
    for ghost in dict.fromkeys(state.ghosts):
        ghosts = list(state.ghosts)
        ghosts.remove(ghost)
        after = replace(state, ghosts=tuple(ghosts))
        if ghost.consuming:
            after = cancelled(after, ghost.lane, _gone(ghost.worker_id))
        name = f"L{ghost.lane + 1} learns that {ghost.worker_id} is gone"
        yield Step(name, returned(after, ghost.lane, *ghost.unacked))
        if ghost.unacked and state.lanes[ghost.lane].ready and (budget := state.budget.spend("reorders")):
            behind = returned(after, ghost.lane, *ghost.unacked, behind=True)
            yield Step(f"{name}, what it had comes behind the others", replace(behind, budget=budget), True)


def broker_misses_heartbeats(system: System, state: State) -> Iterator[Step]:
    """The broker gives up on a stopped worker and takes everything back."""
    for worker in state.workers:
        if worker.status is Status.STOPPED and worker.servings:
            name = f"the broker closes the connection of {worker.id}, stopped"
            yield Step(name, disconnected(state, worker))


def delete_lane(system: System, state: State) -> Iterator[Step]:
    """An idle lane is deleted by anybody, if unused and empty. Only where the contract is broken."""
    if system.contract.deletes_under_its_token:
        return
    for index, lane in enumerate(state.lanes):
        if lane.exists and not lane.consumers and not lane.ready and (budget := state.budget.spend("deletes")):
            yield Step(f"L{index + 1}, idle, is deleted", deleted(replace(state, budget=budget), index))


def deleted(state: State, lane: int) -> State:
    """What is unacked is gone with it; who consumes it is told, and gives the token back."""
    state = with_lane(state, lane, Lane())
    for worker in state.workers:
        for serving in worker.servings:
            if serving.lane == lane and serving.hand:
                lost = replace(serving, hand=(replace(serving.hand[0], lost=True),))
                state = with_serving(state, worker, serving, lost)
            elif serving.lane == lane and serving.phase is Phase.SERVING:
                tokens = [Token(lane, True)] if serving.token is Held.UNACKED else []
                state = with_tokens(with_serving(state, worker, serving, None), *tokens)
    ghosts = (ghost for ghost in state.ghosts if ghost.lane != lane)
    return replace(state, ghosts=tuple(ghosts))


# -- faults -----------------------------------------------------------------------------------------------


def crash(system: System, state: State) -> Iterator[Step]:
    """kill -9; a new process takes its place at once: that it starts later is the same as that it does nothing."""
    for worker in _victims(system, state):
        if (worker.servings or worker.runs) and (budget := state.budget.spend("crashes")):
            after = replace(disconnected(state, worker), budget=budget)
            yield Step(f"{worker.id} crashes", rebooted(after, worker), True)


def cut(system: System, state: State) -> Iterator[Step]:
    """A worker's connection to the broker is lost; it connects again, its runs go on."""
    for worker in _victims(system, state):
        if worker.status is not Status.STOPPED and worker.servings and (budget := state.budget.spend("cuts")):
            cut_off = replace(disconnected(state, worker), budget=budget)
            yield Step(f"{worker.id} loses its connection to the broker", cut_off, True)


def lobby_cut(system: System, state: State) -> Iterator[Step]:
    """The channel that has a worker's tokens dies; that of its lanes does not."""
    for worker in _victims(system, state):
        tokens = [Token(s.lane, True) for s in worker.servings if s.token is Held.UNACKED]
        if worker.status is not Status.STOPPED and tokens and (budget := state.budget.spend("lobby_cuts")):
            begun = (s for s in worker.servings if s.phase not in (Phase.LOOKING, Phase.JOINING))
            servings = tuple(sorted(replace(s, token=Held.LOST) for s in begun))
            after = with_tokens(with_worker(state, replace(worker, servings=servings)), *tokens)
            yield Step(f"{worker.id} loses its tokens", replace(after, budget=budget), True)


def stop(system: System, state: State) -> Iterator[Step]:
    """A worker is stopped; one stays, or nothing could be said of what becomes of the jobs."""
    up = [worker for worker in state.workers if worker.status is Status.UP]
    for worker in up if len(up) > 1 else ():
        if worker.letter in system.victims and worker.servings and (budget := state.budget.spend("stops")):
            stopped = replace(worker, status=Status.STOPPED)
            yield Step(f"{worker.id} is stopped", replace(with_worker(state, stopped), budget=budget), True)


def resume(system: System, state: State) -> Iterator[Step]:
    """A stopped worker goes on, perhaps."""
    for worker in state.workers:
        if worker.status is Status.STOPPED:
            yield Step(f"{worker.id} goes on", with_worker(state, replace(worker, status=Status.UP)), True)


def duplicate(system: System, state: State) -> Iterator[Step]:
    """A second copy of what a lane has, behind all others; a token that nobody needs."""
    for index, lane in enumerate(state.lanes):
        if lane.exists and (budget := state.budget.spend("extra_tokens")):
            more = replace(with_tokens(state, Token(index)), budget=budget)
            yield Step(f"there is one more token of L{index + 1}", more, True)
        hands = [s.hand[0] for worker in state.workers for s in worker.servings if s.lane == index and s.hand]
        unacked = [hand.job for hand in hands if not hand.lost]
        for job in dict.fromkeys((*lane.ready, *unacked)) if lane.exists else ():
            if budget := state.budget.spend("duplicates"):
                twice = with_lane(state, index, replace(lane, ready=(*lane.ready, job)))
                yield Step(f"J{job + 1} is duplicated", replace(twice, budget=budget), True)


def disconnected(state: State, worker: Worker) -> State:
    """The connection is gone: the lobby has the tokens again at once, each lane learns it by itself, later."""
    tokens = [Token(serving.lane, True) for serving in worker.servings if serving.token is Held.UNACKED]
    ghosts = []
    for serving in worker.servings:
        consuming = serving.phase is Phase.SERVING
        if consuming:
            state = _with_ghost_consumer(state, serving, worker)
        unacked = tuple(hand.job for hand in serving.hand if not hand.lost)
        if consuming or unacked:
            ghosts.append(Ghost(serving.lane, worker.id, consuming, unacked))
    after = with_tokens(with_ghosts(state, *ghosts), *tokens)
    return with_worker(after, replace(worker, servings=(), runs=_runs_on(worker)))


def rebooted(state: State, worker: Worker) -> State:
    """A new worker takes the place of one that is no more; of the old ids, it has one that is nowhere any more."""
    used = {ghost.worker_id for ghost in state.ghosts}
    boot = next(boot for boot in count(1) if f"{worker.letter}{boot}" not in used)
    return with_worker(state, Worker(worker.letter, boot))


def _with_ghost_consumer(state: State, serving: Serving, worker: Worker) -> State:
    lane = state.lanes[serving.lane]
    consumers = list(lane.consumers)
    consumers[consumers.index(worker.id)] = _gone(worker.id)
    return with_lane(state, serving.lane, replace(lane, consumers=tuple(consumers)))


def _gone(worker_id: str) -> str:
    return f"{worker_id}, gone"


def _runs_on(worker: Worker) -> tuple[Hand, ...]:
    hands = (*worker.runs, *(hand for serving in worker.servings for hand in serving.hand))
    return tuple(sorted(replace(hand, lost=True) for hand in hands if hand.running))


def _victims(system: System, state: State) -> Iterator[Worker]:
    return (worker for worker in state.workers if worker.letter in system.victims)
