"""The worker: receive, claim, run, look, ack; hold; drain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import assert_never

from jq_actors.model.claim_rules import RowView, Verdict
from jq_actors.model.job import JobState
from jq_actors.model.lane import Fairness
from tests.simulation.rows import NOW
from tests.simulation.state import Ending, Lease, Status, Tag

from .changes import forget_dead, with_copies, with_hand, with_row, with_worker, without_copy
from .losses import interrupted, owner_of, taken_from_owner
from .places import granted, is_locked
from .publishing import admitted
from .settling import look_of
from .state import NO_JOB, Copy, Hand, Phase, Row, State, Worker, distinct_hands, row_of, unfinished
from .system import Step, System


def receive(system: System, state: State) -> Iterator[Step]:
    """The broker hands a message to a worker that has room, and consumes its queue."""
    for worker in state.workers:
        if worker.status is not Status.UP or len(worker.hands) >= system.prefetch:
            continue
        for copy in dict.fromkeys(state.broker):
            if worker.letter not in system.jobs[copy.job].served_by:
                continue
            hands = (*worker.hands, Hand(copy.job, copy.dispatch, copy.redelivered))
            received = with_worker(without_copy(state, copy), replace(worker, hands=tuple(sorted(hands))))
            again = ", redelivered" if copy.redelivered else ""
            yield Step(f"{worker.id} receives J{copy.job + 1}#{copy.dispatch}{again}", received)


def put_down(system: System, state: State) -> Iterator[Step]:
    """An unclaimed delivery that the broker has taken back is forgotten: the copy that comes again counts."""
    for worker in state.workers:
        if worker.status is not Status.STOPPED:
            for hand in distinct_hands(worker, Phase.RECEIVED):
                if hand.tag is Tag.LOST:
                    name = f"{worker.id} forgets J{hand.job + 1}#{hand.dispatch}, which the broker took back"
                    yield Step(name, with_hand(state, worker, hand, None))


def claim(system: System, state: State) -> Iterator[Step]:
    """Judge and claim. A queued job holds a place, so that it needs no look at its group. To hold changes nothing."""
    for worker in state.workers:
        if worker.status is Status.UP and worker.lease is Lease.LIVE:
            for hand in distinct_hands(worker, Phase.RECEIVED):
                yield from _claimed(system, state, worker, hand)


def _claimed(system: System, state: State, worker: Worker, hand: Hand) -> Iterator[Step]:
    row, plan = state.jobs[hand.job].row, system.jobs[hand.job]
    if row is not None and row.state is JobState.RUNNING and row.owner == worker.id:
        yield from _of_own_run(system, state, worker, hand, row)
        return
    seen = None if row is None else RowView(row.state, row.dispatch, owner_of(state, row))
    verdict = system.decisions.judge(seen, hand.dispatch, NOW, promised=not plan.foreign)
    name = f"{worker.id} claims J{hand.job + 1}#{hand.dispatch}: {verdict.value}"
    if row is not None and hand.redelivered and _is_over(row, hand) and system.contract.takes_over_chains:
        yield from _of_a_chain(system, state, worker, hand, row, name)
        return
    match verdict:
        case Verdict.HOLD:
            return
        case Verdict.GRANT:
            yield Step(name, _started(state, worker, hand, hand.job))
        case Verdict.TAKE_OVER:
            yield from _taken_over(system, state, worker, hand, hand.job, name)
        case Verdict.ADOPT:
            if not is_locked(state, plan.group):
                yield _adopted(system, state, worker, hand, name)
        case Verdict.DROP_FINAL | Verdict.DROP_STALE:
            yield Step(name, with_hand(state, worker, hand, None))
        case Verdict.PARK:
            raise AssertionError(f"no judgement: {verdict}")
        case _:
            assert_never(verdict)


def _of_own_run(system: System, state: State, worker: Worker, hand: Hand, row: Row) -> Iterator[Step]:
    """It runs here, by another delivery: held. Or it did, until an error of ours ended its life: `give_back`."""
    if not _is_led(worker, hand.job, row) and not system.contract.given_back_is_unpublished:
        name = f"{worker.id} gives J{hand.job + 1} back, because it has received J{hand.job + 1}#{hand.dispatch}"
        yield Step(name, interrupted(system, state, hand.job, republish=False))


def _is_over(row: Row, hand: Hand) -> bool:
    return row.dispatch != hand.dispatch or row.state not in (JobState.QUEUED, JobState.RUNNING)


def _started(state: State, worker: Worker, hand: Hand, index: int) -> State:
    after = granted(state, index, worker)
    running = replace(hand, phase=Phase.RUNNING, running=index, is_own=index == hand.job)
    return forget_dead(with_hand(after, worker, hand, replace(running, token=row_of(after, index).token)))


def _adopted(system: System, state: State, worker: Worker, hand: Hand, name: str) -> Step:
    """Admitted on arrival: it runs, or waits in its row and its message is acked."""
    sent = admitted(system, state, hand.job)
    if row_of(sent, hand.job).state is JobState.QUEUED:
        return Step(f"{name}, starts", _started(sent, worker, hand, hand.job))
    return Step(f"{name}, waits", with_hand(sent, worker, hand, None))


def _of_a_chain(system: System, state: State, worker: Worker, hand: Hand, row: Row, name: str) -> Iterator[Step]:
    """It brings no run of its job. If it began a chain whose worker is gone, what that ran is taken over."""
    contract = system.contract
    of_group = unfinished(state, row.group)
    runs = [(index, r) for index, r in of_group if r.state is JobState.RUNNING and r.owner == row.owner]
    lost = [index for index, r in runs if system.decisions.owner_is_lost(owner_of(state, r), NOW)]
    if lost:
        name = f"{name}, takes over J{lost[0] + 1} of its chain"
        yield from _taken_over(system, state, worker, hand, lost[0], name)
    elif not contract.holds_for_chains or all(r.owner == worker.id for _, r in runs):
        yield Step(name, with_hand(state, worker, hand, None))


def _taken_over(system: System, state: State, worker: Worker, hand: Hand, index: int, name: str) -> Iterator[Step]:
    """Under the group's lock: taken from its worker; then it runs here, if it is still queued."""
    row = row_of(state, index)
    if is_locked(state, row.group):
        return
    after = taken_from_owner(system, state, index, assigns=system.contract.take_over_assigns)
    now = row_of(after, index)
    if now.state is JobState.QUEUED and now.dispatch == row.dispatch:
        yield Step(name, _started(after, worker, hand, index))
    else:
        yield Step(f"{name}, {now.state}", forget_dead(with_hand(after, worker, hand, None)))


def set_aside(system: System, state: State) -> Iterator[Step]:
    """What this worker cannot decode it sets aside, by a compare-and-set on the job alone. No lock of the group."""
    for worker in state.workers:
        for hand in distinct_hands(worker, Phase.RECEIVED) if worker.status is Status.UP else ():
            row = state.jobs[hand.job].row
            if row is None or row.state is not JobState.QUEUED or row.dispatch != hand.dispatch:
                continue
            if budget := state.budget.spend("undecodable"):
                keeps = system.contract.set_aside_keeps_the_place
                aside = replace(row, state=JobState.UNHANDLED, has_place=keeps, published=False, publisher="")
                after = with_hand(with_row(state, hand.job, aside), worker, hand, None)
                yield Step(f"{worker.id} sets J{hand.job + 1}#{hand.dispatch} aside", replace(after, budget=budget))


def end(system: System, state: State) -> Iterator[Step]:
    """A run ends in every way that is left to it; the statement that settles it sees the rows."""
    for worker in state.workers:
        if worker.status is Status.STOPPED:
            continue
        for hand in distinct_hands(worker, Phase.RUNNING):
            for ending, kind in _ENDINGS.items():
                budget = state.budget if kind is None else state.budget.spend(kind)
                if budget is not None:
                    yield from _ended(system, replace(state, budget=budget), worker, hand, ending)
            if worker.status is Status.DRAINING:
                yield from _ended(system, state, worker, hand, Ending.INTERRUPTED)


_ENDINGS = {
    Ending.SUCCEEDED: None,
    Ending.FAILED: "failures",
    Ending.RETRYING: "retries",
    Ending.UNHANDLED: "strangers",
}
"""What a run may end with, and what it takes from the budget."""


def _ended(system: System, state: State, worker: Worker, hand: Hand, ending: str) -> Iterator[Step]:
    name = f"J{hand.running + 1} in {worker.id} ends: {ending}"
    for chains in _may_go_on(system, state, worker, hand):
        look = look_of(system, state, hand, ending, chains=chains)
        done = min(hand.done + 1, system.quantum) if system.quantum < _MANY else 0
        settling = replace(hand, phase=Phase.SETTLING, ending=ending, look=look, done=done)
        settling = replace(settling, exposed=hand.exposed and not chains)  # who is, must not ask for another one
        yield Step(f"{name}{', its turn is over' if not chains else ''}", with_hand(state, worker, hand, settling))


_MANY = 10


def _may_go_on(system: System, state: State, worker: Worker, hand: Hand) -> list[bool]:
    """Whether it asks for the next one; both, where that depends on how long it has taken."""
    if worker.status is not Status.UP or (hand.tag is Tag.LOST and system.contract.chains_while_connected):
        return [False]
    fairness = Fairness(quantum=system.quantum)
    times = (0.0, fairness.time_slice.total_seconds()) if len(set(_groups(system))) > 1 else (0.0,)
    may = system.decisions.may_chain
    answers = (may(hand.done + 1, seconds, fairness, 1, others_wait=False) for seconds in times)
    return list(dict.fromkeys(answers))


def _groups(system: System) -> Iterator[int]:
    return (plan.group for plan in system.jobs)


def ack_early(system: System, state: State) -> Iterator[Step]:
    """A long run's or chain's delivery is acked: from now on the row's lease is the safety copy."""
    for worker in state.workers if system.acks_early else ():
        if worker.status is not Status.STOPPED:
            for hand in distinct_hands(worker, Phase.RUNNING):
                if hand.tag is not Tag.ACKED:
                    acked = with_hand(state, worker, hand, replace(hand, tag=Tag.ACKED))
                    yield Step(f"{worker.id} acks J{hand.job + 1}#{hand.dispatch} early", acked)


def forget(system: System, state: State) -> Iterator[Step]:
    """An error of ours ends a run's life: its delivery is held for a moment, and then is like one that just came."""
    for worker in state.workers:
        if worker.status is Status.STOPPED:
            continue
        for hand in distinct_hands(worker, Phase.RUNNING, Phase.SETTLING):
            if hand.tag is not Tag.ACKED and (budget := state.budget.spend("errors")):
                again = Hand(hand.job, hand.dispatch, hand.redelivered, tag=hand.tag)
                name = f"an error of ours in {worker.id}, about J{hand.running + 1}"
                yield Step(name, replace(with_hand(state, worker, hand, again), budget=budget), True)


def finish(system: System, state: State) -> Iterator[Step]:
    """A settled delivery is acked, or given back. On a dead channel neither means anything."""
    for worker in state.workers:
        if worker.status is Status.STOPPED:
            continue
        for hand in distinct_hands(worker, Phase.SETTLED, Phase.RETURNING):
            label, done = f"J{hand.job + 1}#{hand.dispatch}", with_hand(state, worker, hand, None)
            if hand.phase is Phase.SETTLED:
                yield Step(f"{worker.id} acks {label}", done)
            else:
                yield Step(f"{worker.id} gives {label} back", _returned(done, hand))


def drain(system: System, state: State) -> Iterator[Step]:
    """SIGTERM: nothing new is started, what was not started goes back, what it still has by its rows too, it leaves."""
    for worker in state.workers:
        if worker.status is Status.UP and (budget := state.budget.spend("shutdowns")):
            draining = with_worker(state, replace(worker, status=Status.DRAINING))
            yield Step(f"{worker.id} is told to stop", replace(draining, budget=budget), True)
        if worker.status is Status.DRAINING:
            for hand in distinct_hands(worker, Phase.RECEIVED):
                given_back = _returned(with_hand(state, worker, hand, None), hand)
                yield Step(f"{worker.id} gives J{hand.job + 1}#{hand.dispatch} back", given_back)
            if not worker.hands and all(p.who != worker.letter for p in state.publishing):
                left = state
                for index, job in enumerate(state.jobs):
                    if job.row is not None and job.row.state is JobState.RUNNING and job.row.owner == worker.id:
                        left = interrupted(system, left, index, republish=True)
                yield Step(f"{worker.id} has drained", rebooted(left, worker))


def _returned(state: State, hand: Hand) -> State:
    return with_copies(state, Copy(hand.job, hand.dispatch, True)) if hand.tag is Tag.UNACKED else state


def rebooted(state: State, worker: Worker) -> State:
    """A new worker takes the place of one that is no more; of the old ids, it has one that is nowhere any more."""
    used = {worker_id for worker_id, _ in state.dead} | {job.row.owner for job in state.jobs if job.row is not None}
    boot = next(boot for boot in count(1) if f"{worker.letter}{boot}" not in used)
    return with_worker(state, Worker(worker.letter, boot))


def give_back(system: System, state: State) -> Iterator[Step]:
    """A worker gives back what it runs, as the rows say, and does not: it never learned of the claim, or forgot it."""
    for worker in state.workers if system.contract.forgotten_claims_are_given_back else ():
        for index, job in enumerate(state.jobs):
            row = job.row
            if row is None or row.state is not JobState.RUNNING or row.owner != worker.id:
                continue
            if worker.status is Status.STOPPED or _is_led(worker, index, row) or is_locked(state, row.group):
                continue
            name = f"{worker.id} gives J{index + 1} back, which it does not run"
            yield Step(name, interrupted(system, state, index, republish=True))


def _is_led(worker: Worker, index: int, row: Row) -> bool:
    """Whether the worker knows of the run that a row says it has."""
    known = {(hand.running, hand.token) for hand in worker.hands} | {hand.chained for hand in worker.hands}
    return (index, row.token) in known - {(NO_JOB, 0)}
