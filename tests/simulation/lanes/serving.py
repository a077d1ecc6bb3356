"""The worker and its lanes: take a token, look, consume; cancel, look, let go; delete; hand over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from jq_actors.transport.port import QueueDepth
from jq_actors.transport.tokens import AfterCancel
from tests.simulation.state import Status

from .changes import cancelled, consumed, returned, with_serving, with_tokens, without_token
from .publishing import depth_of
from .state import Held, Phase, Serving, State, Token, Worker
from .system import Step, System
from .world import deleted

FOR_EVER = 1e9
"""Seconds."""


def take_token(system: System, state: State) -> Iterator[Step]:
    """The lobby gives a token to a worker that has a slot free."""
    for worker in state.workers:
        if worker.status is Status.UP and len(worker.servings) < system.slots:
            for token in dict.fromkeys(state.lobby):
                serving = Serving(token.lane, redelivered=token.redelivered)
                name = f"{worker.id} takes a token of L{token.lane + 1}{', redelivered' if token.redelivered else ''}"
                yield Step(name, with_serving(without_token(state, token), worker, None, serving))


def attach(system: System, state: State) -> Iterator[Step]:
    """Look whether the token is needed, then consume."""
    for worker, serving in _servings(state, Phase.LOOKING):
        if _is_changing_here(system, worker, serving.lane):
            continue
        name, depth = f"{worker.id} looks at L{serving.lane + 1}", depth_of(state, serving.lane)
        if _is_wanted(system, state, worker, serving):
            joining = replace(serving, phase=Phase.JOINING, redelivered=False)
            yield Step(f"{name}: wanted", with_serving(state, worker, serving, joining))
        elif not system.decisions.looks_again(
            depth, 0 if _has_ghosts(system, state, serving.lane) else FOR_EVER, redelivered=serving.redelivered
        ):
            yield Step(f"{name}: acks the token", with_serving(state, worker, serving, None))
    for worker, serving in _servings(state, Phase.JOINING):
        if not state.lanes[serving.lane].exists:
            missing = f"{worker.id} cannot consume L{serving.lane + 1}: missing"
            yield Step(missing, with_serving(state, worker, serving, None))
        else:
            joined = with_serving(state, worker, serving, replace(serving, phase=Phase.SERVING))
            yield Step(f"{worker.id} consumes L{serving.lane + 1}", consumed(joined, serving.lane, worker.id))


def _is_changing_here(system: System, worker: Worker, lane: int) -> bool:
    """Whether another service of the lane begins or ends here: what counts then is not known before it has."""
    others = (other.phase for other in worker.servings if other.lane == lane)
    return system.contract.waits_for_own_changes and any(
        phase not in (Phase.LOOKING, Phase.SERVING) for phase in others
    )


def _is_wanted(system: System, state: State, worker: Worker, serving: Serving) -> bool:
    others = (other.phase for other in worker.servings if other.lane == serving.lane)
    if system.contract.waits_for_own_changes:
        here = sum(phase is Phase.SERVING for phase in others)
    else:
        here = sum(1 for _ in others) - 1
    return system.decisions.is_wanted(depth_of(state, serving.lane), here, system.lanes[serving.lane].seats)


def drained(system: System, state: State) -> Iterator[Step]:
    """Nothing came for a while: cancel. Then look; only a lane without work lets go of the token."""
    for before, worker, serving in _drained(system, state):
        token = serving.token if system.contract.acks_after_the_look else Held.ACKED
        idle = replace(serving, phase=Phase.IDLE, token=token)
        yield from _cancels(system, before, worker, serving, idle, "idle")
    for worker, serving in _given_back(state, Phase.IDLE):
        yield _looked_again(system, state, worker, serving)


def delete(system: System, state: State) -> Iterator[Step]:
    """Nothing came for long: cancel; delete the lane if it is unused and empty. Then look, as ever."""
    for before, worker, serving in _drained(system, state):
        if system.lanes[serving.lane].seats == 1 and (budget := before.budget.spend("deletes")):
            deleting = replace(serving, phase=Phase.DELETING)
            yield from _cancels(system, replace(before, budget=budget), worker, serving, deleting, "idle for long")
    for worker, serving in _given_back(state, Phase.DELETING):
        idle = with_serving(state, worker, serving, replace(serving, phase=Phase.IDLE))
        lane = state.lanes[serving.lane]
        if lane.ready or (lane.consumers and system.contract.deletes_if_unused):
            yield Step(f"{worker.id} does not delete L{serving.lane + 1}: in use", idle)
        else:
            yield Step(f"{worker.id} deletes L{serving.lane + 1}", deleted(idle, serving.lane))


def _drained(system: System, state: State) -> Iterator[tuple[State, Worker, Serving]]:
    """Servings to which nothing comes, or only what crosses the cancel: then the state has paid for that."""
    for worker, serving in _servings(state, Phase.SERVING):
        if _has_ghosts(system, state, serving.lane):
            continue
        if serving.hand:
            if not serving.hand[0].running and (budget := state.budget.spend("races")):
                yield replace(state, budget=budget), worker, serving
        elif not (state.lanes[serving.lane].ready and is_active(system, state, worker, serving.lane)):
            yield state, worker, serving


def _looked_again(system: System, state: State, worker: Worker, serving: Serving) -> Step:
    name = f"{worker.id} looks at L{serving.lane + 1} once more: "
    decision = system.decisions.after_cancel(depth_of(state, serving.lane))
    if decision is AfterCancel.LET_GO or not _is_wanted(system, state, worker, serving):
        return Step(f"{name}lets go", with_serving(state, worker, serving, None))
    on = with_serving(state, worker, serving, replace(serving, phase=Phase.SERVING))
    return Step(f"{name}serves on", consumed(on, serving.lane, worker.id))


def hand_over(system: System, state: State) -> Iterator[Step]:
    """It was served for long enough, or its token is lost: cancel, a fresh token, ack the old one."""
    for worker, serving in _servings(state, Phase.SERVING):
        runs = any(hand.running for hand in serving.hand)
        if not runs and not _has_ghosts(system, state, serving.lane) and _is_others_turn(system, state, serving):
            handing = replace(serving, phase=Phase.HANDING, served=False)
            yield from _hands_over(system, state, worker, serving, handing)
    for worker, serving in _servings(state, Phase.HANDING):
        if not system.contract.hands_over_before_it_acks and serving.token is not Held.ACKED:
            early = with_serving(state, worker, serving, replace(serving, token=Held.ACKED))
            yield Step(f"{worker.id} acks the old token of L{serving.lane + 1}", early)
        else:
            handed = with_serving(state, worker, serving, replace(serving, phase=Phase.HANDED))
            name = f"{worker.id} puts a fresh token of L{serving.lane + 1}"
            yield Step(name, with_tokens(handed, Token(serving.lane)))
    for worker, serving in _servings(state, Phase.HANDED):
        serves_on = replace(serving, phase=Phase.SERVING, token=Held.ACKED)
        on = None if system.contract.cancels_before_it_hands_over else serves_on
        yield Step(f"{worker.id} acks the old token of L{serving.lane + 1}", with_serving(state, worker, serving, on))


def _is_others_turn(system: System, state: State, serving: Serving) -> bool:
    if serving.token is Held.LOST:
        return True
    lobby = QueueDepth(len(state.lobby), sum(worker.status is Status.UP for worker in state.workers))
    return serving.served and system.decisions.hands_over(system.quantum, 0, 1, system.fairness, lobby)


def _hands_over(system: System, state: State, worker: Worker, serving: Serving, handing: Serving) -> Iterator[Step]:
    if system.contract.cancels_before_it_hands_over:
        yield from _cancels(system, state, worker, serving, handing, "others wait")
    else:
        name = f"{worker.id} will replace its token of L{serving.lane + 1}"
        yield Step(name, with_serving(state, worker, serving, handing))


def _cancels(
    system: System, state: State, worker: Worker, serving: Serving, after: Serving, why: str
) -> Iterator[Step]:
    """The consumer is cancelled, and what it had in hand given back in the same breath."""
    name = f"{worker.id} cancels L{serving.lane + 1}, {why}"
    rivals = system.lanes[serving.lane].seats == 1 and len(state.lanes[serving.lane].consumers) > 1
    if serving.hand and rivals and system.contract.outlasts_rivals:
        return
    cancelled_ = cancelled(state, serving.lane, worker.id)
    if not serving.hand or not system.contract.gives_back_in_one_breath:
        yield Step(name, with_serving(cancelled_, worker, serving, after))
    else:
        without = with_serving(cancelled_, worker, serving, replace(after, hand=()))
        yield from _gives_back(without, serving, f"{name}, and gives back what it had")


def give_back_late(system: System, state: State) -> Iterator[Step]:
    """What was in hand is given back after the consumer was cancelled. Only where the contract is broken."""
    if not system.contract.gives_back_in_one_breath:
        for worker, serving in _servings(state, Phase.IDLE, Phase.DELETING, Phase.HANDING, Phase.HANDED):
            if serving.hand:
                without = with_serving(state, worker, serving, replace(serving, hand=()))
                yield from _gives_back(without, serving, f"{worker.id} gives back what it had of L{serving.lane + 1}")


def _gives_back(state: State, serving: Serving, name: str) -> Iterator[Step]:
    """To where it was; or, if the broker does not keep the order, behind the others."""
    jobs = [hand.job for hand in serving.hand if not hand.lost]
    yield Step(name, returned(state, serving.lane, *jobs))
    if jobs and state.lanes[serving.lane].ready and (budget := state.budget.spend("reorders")):
        behind = returned(state, serving.lane, *jobs, behind=True)
        yield Step(f"{name}, behind the others", replace(behind, budget=budget), True)


def is_active(system: System, state: State, worker: Worker, lane: int) -> bool:
    """Whether the broker would deliver to it: with one seat, to the consumer that came first only."""
    consumers = state.lanes[lane].consumers
    return worker.id in (consumers if system.lanes[lane].seats > 1 else consumers[:1])


def _has_ghosts(system: System, state: State, lane: int) -> bool:
    return system.contract.ghosts_do_not_last and any(ghost.lane == lane for ghost in state.ghosts)


def _given_back(state: State, phase: Phase) -> Iterator[tuple[Worker, Serving]]:
    """Servings in ``phase`` that have given back what they had."""
    return ((worker, serving) for worker, serving in _servings(state, phase) if not serving.hand)


def _servings(state: State, *phases: Phase) -> Iterator[tuple[Worker, Serving]]:
    for worker in state.workers:
        if worker.status is not Status.STOPPED:
            for serving in dict.fromkeys(worker.servings):
                if serving.phase in phases:
                    yield worker, serving
