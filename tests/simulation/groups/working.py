"""The worker: receive, claim, run, look, ack; hold; drain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import assert_never

from jq_actors.job import JobState
from jq_actors.protocol import Owner, RowView, Verdict
from tests.simulation.rows import EARLIER, LATER, NOW
from tests.simulation.state import NOBODY, Ending, Lease, Status, Tag

from .changes import counted, forget_dead, with_copies, with_hand, with_job, with_row, with_worker, without_copy
from .places import given, granted, is_locked, waits
from .publishing import admitted
from .settling import failed, look_of
from .state import NO_JOB, Copy, Hand, Phase, Row, State, Worker, distinct_hands, lease_of, row_of, unfinished
from .system import Step, System


def receive(system: System, state: State) -> Iterator[Step]:
    """The broker hands a message to a worker that has room."""
    for worker in state.workers:
        if worker.status is not Status.UP or len(worker.hands) >= system.prefetch:
            continue
        for copy in dict.fromkeys(state.broker):
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
    seen = None if row is None else RowView(row.state, row.dispatch, owner_of(state, row))
    verdict = system.decisions.judge(seen, hand.dispatch, NOW, promised=not plan.foreign)
    name = f"{worker.id} claims J{hand.job + 1}#{hand.dispatch}: {verdict.value}"
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
        case Verdict.DROP_FINAL:
            yield from _of_a_chain(system, state, worker, hand, name)
        case Verdict.DROP_STALE:
            yield Step(name, with_hand(state, worker, hand, None))
        case Verdict.TURN | Verdict.PARK | Verdict.LEAVE:
            raise AssertionError(f"no verdict of this model: {verdict}")
        case _:
            assert_never(verdict)


def _started(state: State, worker: Worker, hand: Hand, index: int) -> State:
    after = granted(state, index, worker)
    running = replace(hand, phase=Phase.RUNNING, running=index, token=row_of(after, index).token)
    return forget_dead(with_hand(after, worker, hand, running))


def _adopted(system: System, state: State, worker: Worker, hand: Hand, name: str) -> Step:
    """Admitted on arrival: it runs, or waits in its row and its message is acked."""
    sent = admitted(system, state, hand.job)
    if row_of(sent, hand.job).state is JobState.QUEUED:
        return Step(f"{name}, starts", _started(sent, worker, hand, hand.job))
    return Step(f"{name}, waits", with_hand(sent, worker, hand, None))


def _of_a_chain(system: System, state: State, worker: Worker, hand: Hand, name: str) -> Iterator[Step]:
    """The job has ended. If it began a chain whose worker is gone, what that ran is taken over."""
    dropped = Step(name, with_hand(state, worker, hand, None))
    row = state.jobs[hand.job].row
    if not hand.redelivered or row is None or not system.contract.takes_over_chains:
        yield dropped
        return
    running = [(index, r) for index, r in unfinished(state, row.group) if r.state is JobState.RUNNING]
    lost = [index for index, r in running if system.decisions.owner_is_lost(owner_of(state, r), NOW)]
    if lost:
        name = f"{name}, takes over J{lost[0] + 1} of its chain"
        yield from _taken_over(system, state, worker, hand, lost[0], name)
    elif not running or not system.contract.holds_for_chains:
        yield dropped


def _taken_over(system: System, state: State, worker: Worker, hand: Hand, index: int, name: str) -> Iterator[Step]:
    """Under the group's lock: taken from its worker; then it runs here, if it holds a place."""
    if is_locked(state, row_of(state, index).group):
        return
    contract = system.contract
    after = taken_from_owner(
        system, state, index, sees_pauses=contract.take_over_sees_pauses, assigns=contract.take_over_assigns
    )
    row = row_of(after, index)
    if row.state is JobState.QUEUED:
        yield Step(name, _started(after, worker, hand, index))
    else:
        yield Step(f"{name}, {row.state}", forget_dead(with_hand(after, worker, hand, None)))


def taken_from_owner(system: System, state: State, index: int, *, sees_pauses: bool, assigns: bool) -> State:
    """A lost worker's job is queued again, unpublished, and keeps its place; or waits; or has crashed too often."""
    job, row = state.jobs[index], row_of(state, index)
    group = row.group
    row = replace(row, token=0, owner=NOBODY, published=False, publisher=NOBODY, crashes=row.crashes + 1)
    after = with_job(state, index, replace(job, row=row, claim=0))
    if not system.decisions.survives_crash(row.crashes, system.max_crashes):
        over = with_row(after, index, replace(row, state=JobState.FAILED, has_place=False))
        after = failed(system, counted(over, group, held=-1), group)
    elif state.groups[group].paused and sees_pauses:
        after = counted(waits(system, after, index), group, held=-1, waiting=1)
    else:
        keeps = system.contract.recovery_keeps_the_place
        after = with_row(after, index, replace(row, state=JobState.QUEUED, has_place=keeps))
        after = counted(after, group, held=0 if keeps else -1)
    return given(system, after, group) if assigns or row_of(after, index).state.is_final else after


def owner_of(state: State, row: Row) -> Owner | None:
    """The owner of a running row; leases become times."""
    lease = lease_of(state, row.owner)
    if row.state is not JobState.RUNNING or lease is Lease.GONE:
        return None
    return Owner(row.owner, LATER if lease is Lease.LIVE else EARLIER)


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
        yield Step(f"{name}{', its turn is over' if not chains else ''}", with_hand(state, worker, hand, settling))


_MANY = 10
_SLICE = 1.0


def _may_go_on(system: System, state: State, worker: Worker, hand: Hand) -> list[bool]:
    """Whether it asks for the next one; both, where that depends on how long it has taken."""
    if worker.status is not Status.UP or (hand.tag is Tag.LOST and system.contract.chains_while_connected):
        return [False]
    others_wait = any(system.jobs[copy.job].group != row_of(state, hand.running).group for copy in state.broker)
    may = system.decisions.may_chain
    answers = (
        may(hand.done + 1, system.quantum, seconds, _SLICE, others_wait=others_wait) for seconds in (0.0, _SLICE)
    )
    return list(dict.fromkeys(answers))


def ack_early(system: System, state: State) -> Iterator[Step]:
    """A long run's or chain's delivery is acked: from now on the row's lease is the safety copy."""
    for worker in state.workers if system.acks_early else ():
        if worker.status is not Status.STOPPED:
            for hand in distinct_hands(worker, Phase.RUNNING):
                if hand.tag is not Tag.ACKED:
                    acked = with_hand(state, worker, hand, replace(hand, tag=Tag.ACKED))
                    yield Step(f"{worker.id} acks J{hand.job + 1}#{hand.dispatch} early", acked)


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
    """SIGTERM: nothing new is started, what was not started goes back, the process ends."""
    for worker in state.workers:
        if worker.status is Status.UP and (budget := state.budget.spend("shutdowns")):
            draining = with_worker(state, replace(worker, status=Status.DRAINING))
            yield Step(f"{worker.id} is told to stop", replace(draining, budget=budget), True)
        if worker.status is Status.DRAINING:
            for hand in distinct_hands(worker, Phase.RECEIVED):
                given_back = _returned(with_hand(state, worker, hand, None), hand)
                yield Step(f"{worker.id} gives J{hand.job + 1}#{hand.dispatch} back", given_back)
            if not worker.hands and all(p.who != worker.letter for p in state.publishing):
                yield Step(f"{worker.id} has drained", rebooted(state, worker))


def _returned(state: State, hand: Hand) -> State:
    return with_copies(state, Copy(hand.job, hand.dispatch, True)) if hand.tag is Tag.UNACKED else state


def rebooted(state: State, worker: Worker) -> State:
    """A new worker takes the place of one that is no more; of the old ids, it has one that is nowhere any more."""
    used = {worker_id for worker_id, _ in state.dead}
    boot = next(boot for boot in count(1) if f"{worker.letter}{boot}" not in used)
    return with_worker(state, Worker(worker.letter, boot))


def is_held(worker: Worker, index: int, row: Row) -> bool:
    """Whether the worker knows of the run that a row says it has."""
    known = {(hand.running, hand.token) for hand in worker.hands} | {hand.chained for hand in worker.hands}
    return (index, row.token) in known - {(NO_JOB, 0)}
