"""The worker and its deliveries: receive, run, ack; drain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tests.simulation.state import Status

from .changes import with_job, with_lane, with_serving, with_worker
from .serving import is_active
from .state import Hand, Phase, Serving, State, Worker
from .system import Step, System
from .world import disconnected, rebooted


def receive(system: System, state: State) -> Iterator[Step]:
    """The broker hands the first message of a lane to a consumer that has none in hand."""
    for worker in state.workers:
        for serving in dict.fromkeys(worker.servings):
            lane = state.lanes[serving.lane]
            if worker.status is not Status.UP or serving.phase is not Phase.SERVING or serving.hand or not lane.ready:
                continue
            if is_active(system, state, worker, serving.lane):
                job, *rest = lane.ready
                received = with_lane(state, serving.lane, replace(lane, ready=tuple(rest)))
                holding = replace(serving, hand=(Hand(job),))
                name = f"{worker.id} receives J{job + 1}"
                yield Step(name, with_serving(received, worker, serving, holding))


def start(system: System, state: State) -> Iterator[Step]:
    """What is in hand runs: the lane alone gives the order."""
    for worker in state.workers:
        if worker.status is Status.UP:
            for serving in dict.fromkeys(worker.servings):
                if serving.phase is Phase.SERVING and serving.hand and not serving.hand[0].running:
                    running = replace(serving, hand=(replace(serving.hand[0], running=True),))
                    name = f"{worker.id} starts J{serving.hand[0].job + 1}"
                    yield Step(name, with_serving(state, worker, serving, running))


def _ended(serving: Serving) -> Serving:
    return replace(serving, hand=(), served=True)


def end(system: System, state: State) -> Iterator[Step]:
    """A run ends in every way that is left to it."""
    for worker in state.workers:
        if worker.status is Status.STOPPED:
            continue
        for serving in dict.fromkeys(worker.servings):
            for hand in serving.hand:
                if hand.running:
                    yield from _ends(system, state, worker, serving, hand)
        for hand in dict.fromkeys(worker.runs):
            yield from _ends(system, state, worker, None, hand)


def _ends(system: System, state: State, worker: Worker, serving: Serving | None, hand: Hand) -> Iterator[Step]:
    name = f"J{hand.job + 1} in {worker.id}"
    done = with_job(state, hand.job, replace(state.jobs[hand.job], done=True))
    yield Step(f"{name} ends", _put_down(done, worker, serving, hand, None))
    again = replace(hand, running=False)
    if budget := state.budget.spend("retries"):
        yield Step(f"{name} will be retried", _put_down(replace(state, budget=budget), worker, serving, hand, again))
    if worker.status is Status.DRAINING:
        yield Step(f"{name} is interrupted", _put_down(state, worker, serving, hand, again))


def _put_down(state: State, worker: Worker, serving: Serving | None, hand: Hand, again: Hand | None) -> State:
    """The delivery is acked, or (``again``) looked at again; one that is lost is forgotten."""
    if serving is None:
        runs = list(worker.runs)
        runs.remove(hand)
        return with_worker(state, replace(worker, runs=tuple(runs)))
    return with_serving(state, worker, serving, _ended(serving) if again is None else replace(serving, hand=(again,)))


def drain(system: System, state: State) -> Iterator[Step]:
    """SIGTERM: nothing more starts; when nothing runs, the connection is closed, and a new process starts."""
    for worker in state.workers:
        if worker.status is Status.UP and (budget := state.budget.spend("shutdowns")):
            draining = replace(with_worker(state, replace(worker, status=Status.DRAINING)), budget=budget)
            yield Step(f"{worker.id} is told to stop", draining)
        if worker.status is Status.DRAINING and not any(hand.running for hand in worker.hands):
            yield Step(f"{worker.id} has drained", rebooted(disconnected(state, worker), worker))
