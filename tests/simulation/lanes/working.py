"""The worker and its deliveries: receive, ask whose turn it is, run, settle, ack; drain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import assert_never

from jq_actors.job import JobId
from jq_actors.protocol import RowView, Verdict, may_settle
from jq_actors.turns import Leave, Park, Start, Wait
from tests.simulation.state import Ending, Lease, Status

from .changes import forget_dead, with_job, with_lane, with_serving, with_worker
from .rows import granted, owner_of, parked, settled, taken_from_owner
from .serving import is_active
from .state import NO_JOB, Hand, Phase, Serving, State, Worker
from .system import Step, System
from .view import NOW, view_of
from .world import disconnected, rebooted


def receive(system: System, state: State) -> Iterator[Step]:
    """The broker hands the first message of a lane to a consumer that has none in hand."""
    for worker in state.workers:
        for serving in dict.fromkeys(worker.servings):
            lane = state.lanes[serving.lane]
            if worker.status is not Status.UP or serving.phase is not Phase.SERVING or serving.hand or not lane.ready:
                continue
            if is_active(system, state, worker, serving.lane):
                copy, *rest = lane.ready
                received = with_lane(state, serving.lane, replace(lane, ready=tuple(rest)))
                holding = replace(serving, hand=(Hand(copy.job, copy.dispatch),))
                name = f"{worker.id} receives J{copy.job + 1}#{copy.dispatch}"
                yield Step(name, with_serving(received, worker, serving, holding))


def claim(system: System, state: State) -> Iterator[Step]:
    """Judge, and see whose turn it is: one transaction, under the group's lock. To hold and to wait change nothing."""
    for worker in state.workers:
        if worker.status is Status.UP and worker.lease is Lease.LIVE:
            for serving in dict.fromkeys(worker.servings):
                if serving.phase is Phase.SERVING and serving.hand and serving.hand[0].running == NO_JOB:
                    yield from _claimed(system, state, worker, serving, serving.hand[0])


def _claimed(system: System, state: State, worker: Worker, serving: Serving, hand: Hand) -> Iterator[Step]:
    if not system.rows:
        running = replace(serving, hand=(replace(hand, running=hand.job),))
        yield Step(f"{worker.id} starts J{hand.job + 1}", with_serving(state, worker, serving, running))
        return
    row = state.jobs[hand.job].row
    assert row is not None
    seen = RowView(row.state, row.dispatch, owner_of(state, row), grouped=True)
    verdict = system.decisions.judge(seen, hand.dispatch, NOW, promised=True)
    name = f"{worker.id} claims J{hand.job + 1}#{hand.dispatch}: {verdict.value}"
    match verdict:
        case Verdict.HOLD:
            return
        case Verdict.DROP_FINAL | Verdict.DROP_STALE:
            yield Step(name, with_serving(state, worker, serving, _ended(serving)))
        case Verdict.TURN:
            yield from _in_turn(system, state, worker, serving, name)
        case Verdict.TAKE_OVER:
            taken = taken_from_owner(state, hand.job)
            yield from _in_turn(system, taken, worker, serving, name)
        case Verdict.GRANT:
            yield Step(name, _started(state, worker, serving, hand.job))
        case Verdict.ADOPT | Verdict.PARK | Verdict.LEAVE:
            raise AssertionError(f"no verdict of this model: {verdict}")
        case _:
            assert_never(verdict)


def _in_turn(system: System, state: State, worker: Worker, serving: Serving, name: str) -> Iterator[Step]:
    (hand,), plan = serving.hand, system.lanes[serving.lane]
    turn = system.decisions.turn_of(view_of(system, state, plan.group), JobId(str(hand.job)), plan.queue, NOW)
    match turn:
        case Start(member):
            index = int(member.job_id)
            instead = "" if index == hand.job else f", J{index + 1} instead"
            yield Step(f"{name}, start{instead}", _started(state, worker, serving, index))
        case Wait():
            return
        case Leave():
            yield Step(f"{name}, leave", with_serving(state, worker, serving, replace(serving, phase=Phase.LEAVING)))
        case Park():
            marked = parked(state, hand.job) if system.contract.parked_is_marked else state
            yield Step(f"{name}, park", with_serving(marked, worker, serving, _ended(serving)))
        case _:
            assert_never(turn)


def _started(state: State, worker: Worker, serving: Serving, index: int) -> State:
    after = granted(state, index, worker)
    row = after.jobs[index].row
    assert row is not None
    running = replace(serving.hand[0], running=index, token=row.token)
    return forget_dead(with_serving(after, worker, serving, replace(serving, hand=(running,))))


def _ended(serving: Serving) -> Serving:
    return replace(serving, hand=(), served=True)


def end(system: System, state: State) -> Iterator[Step]:
    """A run ends in every way that is left to it, and is settled."""
    for worker in state.workers:
        if worker.status is Status.STOPPED:
            continue
        for serving in dict.fromkeys(worker.servings):
            for hand in serving.hand:
                if hand.running != NO_JOB:
                    yield from _ends(system, state, worker, serving, hand)
        for hand in dict.fromkeys(worker.runs):
            yield from _ends(system, state, worker, None, hand)


def _ends(system: System, state: State, worker: Worker, serving: Serving | None, hand: Hand) -> Iterator[Step]:
    for (ending, is_long), kind in _ENDINGS.items():
        budget = state.budget if kind is None else state.budget.spend(kind)
        if budget is not None:
            name = f"J{hand.running + 1} in {worker.id} ends: {ending}{', for long' if is_long else ''}"
            yield _settled(system, replace(state, budget=budget), worker, serving, hand, ending, is_long, name)
    if worker.status is Status.DRAINING:
        name = f"J{hand.running + 1} in {worker.id} is interrupted"
        yield _settled(system, state, worker, serving, hand, Ending.INTERRUPTED, False, name)


_ENDINGS = {
    (Ending.SUCCEEDED, False): None,
    (Ending.FAILED, False): "failures",
    (Ending.RETRYING, False): "retries",
    (Ending.RETRYING, True): "long_retries",
    (Ending.UNHANDLED, False): "strangers",
}
"""What a run may end with, whether it waits for long, and what it takes from the budget."""


def _settled(
    system: System,
    state: State,
    worker: Worker,
    serving: Serving | None,
    hand: Hand,
    ending: Ending,
    is_long: bool,
    name: str,
) -> Step:
    again = replace(hand, running=NO_JOB, token=0)
    if not system.rows:
        stays = ending in (Ending.RETRYING, Ending.INTERRUPTED)
        after = state if stays else with_job(state, hand.running, replace(state.jobs[hand.running], done=True))
        return Step(name, _put_down(after, worker, serving, hand, again if stays else None))
    row = state.jobs[hand.running].row
    assert row is not None
    instead = hand.running != hand.job and system.contract.keeps_the_delivery_of_another
    if not may_settle(row.state, row.token, hand.token):
        return Step(f"{name}: refused", _put_down(state, worker, serving, hand, again if instead else None))
    keeps_turn = ending is Ending.RETRYING and not is_long and not system.overtake and serving is not None
    after = settled(system, state, hand, ending, is_long=is_long, keeps_turn=keeps_turn)
    stays = instead or keeps_turn or ending is Ending.INTERRUPTED
    return Step(name, _put_down(after, worker, serving, hand, again if stays else None))


def _put_down(state: State, worker: Worker, serving: Serving | None, hand: Hand, again: Hand | None) -> State:
    """The delivery is acked, or (``again``) looked at again; one that is lost is forgotten."""
    if serving is None:
        runs = list(worker.runs)
        runs.remove(hand)
        return with_worker(state, replace(worker, runs=tuple(runs)))
    return with_serving(state, worker, serving, _ended(serving) if again is None else replace(serving, hand=(again,)))


def drain(system: System, state: State) -> Iterator[Step]:
    """SIGTERM: no more claims; when nothing runs, the connection is closed, and a new process starts."""
    for worker in state.workers:
        if worker.status is Status.UP and (budget := state.budget.spend("shutdowns")):
            draining = replace(with_worker(state, replace(worker, status=Status.DRAINING)), budget=budget)
            yield Step(f"{worker.id} is told to stop", draining)
        if worker.status is Status.DRAINING and all(hand.running == NO_JOB for hand in worker.hands):
            yield Step(f"{worker.id} has drained", rebooted(disconnected(state, worker), worker))
