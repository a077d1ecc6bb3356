"""The worker: receive, claim, run, settle, ack; hold; drain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import assert_never

from jq_actors.model.claim_rules import Verdict
from jq_actors.model.job import JobState

from .changes import forget_dead, with_copies, with_hand, with_job, with_worker, without_copy
from .rows import NOW, granted, settled, taken_from_owner, view
from .state import Copy, Ending, Hand, Job, Lease, Phase, Row, State, Status, Tag, Worker, distinct_hands
from .system import Step, System, booted


def receive(system: System, state: State) -> Iterator[Step]:
    """The broker hands a message to a worker that has room."""
    for worker in state.workers:
        unacked = sum(hand.tag is Tag.UNACKED for hand in worker.hands)
        if worker.status is not Status.UP or unacked >= system.prefetch:
            continue
        for copy in dict.fromkeys(state.broker):
            taken = without_copy(state, copy)
            if worker.letter not in system.jobs[copy.job].known_to:
                budget = state.budget.spend("strangers")
                if budget is None:
                    continue
                taken = replace(taken, budget=budget)
            hands = tuple(sorted((*worker.hands, Hand(copy.job, copy.dispatch))))
            name = f"{worker.id} receives J{copy.job + 1}#{copy.dispatch}"
            yield Step(name, with_worker(taken, replace(worker, hands=hands)))


def put_down(system: System, state: State) -> Iterator[Step]:
    """An unclaimed delivery that the broker has taken back is forgotten: the copy that comes again counts."""
    for worker in state.workers:
        if worker.status is not Status.STOPPED:
            for hand in distinct_hands(worker, Phase.RECEIVED):
                if hand.tag is Tag.LOST and not hand.token:
                    name = f"{worker.id} forgets J{hand.job + 1}#{hand.dispatch}, which the broker took back"
                    yield Step(name, with_hand(state, worker, hand, None))


def claim(system: System, state: State) -> Iterator[Step]:
    """Judge and claim, one compare-and-set. A held delivery is judged again and again: HOLD changes nothing."""
    for worker in state.workers:
        if worker.status is not Status.UP:
            continue
        if worker.lease is not Lease.LIVE and system.contract.acts_under_own_lease:
            continue
        for hand in distinct_hands(worker, Phase.RECEIVED):
            yield from _claimed(system, state, worker, hand)


def _claimed(system: System, state: State, worker: Worker, hand: Hand) -> Iterator[Step]:
    job = state.jobs[hand.job]
    name = f"{worker.id} claims J{hand.job + 1}#{hand.dispatch}"
    if _granted_before(system, job, worker, hand):
        yield Step(f"{name} again: granted before", with_hand(state, worker, hand, replace(hand, phase=Phase.CLAIMED)))
        return
    seen = None if job.row is None else view(system, state, job.row, worker)
    verdict = system.decisions.judge(seen, hand.dispatch, NOW, promised=not system.jobs[hand.job].foreign)
    name, row = f"{name}: {verdict.value}", job.row
    match verdict:
        case Verdict.HOLD:
            return
        case Verdict.DROP_FINAL | Verdict.DROP_STALE:
            yield Step(name, with_hand(state, worker, hand, None))
            return
        case Verdict.ADOPT:
            row = Row(JobState.QUEUED, dispatch=hand.dispatch, published=True)
        case Verdict.TAKE_OVER:
            job = taken_from_owner(system, job)
            row = job.row
        case Verdict.GRANT:
            pass
        case Verdict.PARK:
            raise AssertionError(f"of groups, no judgement: {verdict}")
        case _:
            assert_never(verdict)
    assert row is not None
    if row.state is JobState.FAILED:
        failed = with_hand(with_job(state, hand.job, job), worker, hand, None)
        yield Step(f"{name}, failed after {row.crashes} crashes", forget_dead(failed))
        return
    after = forget_dead(granted(state, hand.job, job, row, worker))
    claimed = replace(hand, token=after.jobs[hand.job].claim)
    yield Step(name, with_hand(after, worker, hand, replace(claimed, phase=Phase.CLAIMED)))
    if budget := state.budget.spend("lost_answers"):
        unknown = replace(with_hand(after, worker, hand, claimed), budget=budget)
        yield Step(f"{name}, but the answer is lost", unknown, fault=True)


def _granted_before(system: System, job: Job, worker: Worker, hand: Hand) -> bool:
    row = job.row
    if row is None or not hand.token or not system.contract.claims_know_their_own:
        return False
    return row.state is JobState.RUNNING and row.owner == worker.id and row.token == hand.token


def run(system: System, state: State) -> Iterator[Step]:
    """A claimed job starts, and ends in every way that is left to it."""
    for worker in state.workers:
        if worker.status is Status.STOPPED:
            continue
        for hand in distinct_hands(worker, Phase.CLAIMED, Phase.RUNNING):
            job = f"J{hand.job + 1}"
            if hand.phase is Phase.RUNNING:
                yield from _ends(state, worker, hand)
            elif worker.letter in system.jobs[hand.job].known_to:
                running = with_hand(state, worker, hand, replace(hand, phase=Phase.RUNNING))
                yield Step(f"{worker.id} starts {job}", running)
            else:
                ended = replace(hand, phase=Phase.ENDED, ending=Ending.UNHANDLED)
                yield Step(f"{worker.id} does not know the actor of {job}", with_hand(state, worker, hand, ended))


def _ends(state: State, worker: Worker, hand: Hand) -> Iterator[Step]:
    for ending, kind in _ENDINGS.items():
        budget = state.budget if kind is None else state.budget.spend(kind)
        if budget is not None:
            ended = with_hand(state, worker, hand, replace(hand, phase=Phase.ENDED, ending=ending))
            yield Step(f"J{hand.job + 1} in {worker.id} ends: {ending}", replace(ended, budget=budget))
    if worker.status is Status.DRAINING:
        ended = with_hand(state, worker, hand, replace(hand, phase=Phase.ENDED, ending=Ending.INTERRUPTED))
        yield Step(f"J{hand.job + 1} in {worker.id} is interrupted", ended)


_ENDINGS = {Ending.SUCCEEDED: None, Ending.RETRYING: "retries", Ending.SNOOZED: "snoozes"}
"""What a run may end with, and what it takes from the budget. A final failure differs from success in nothing."""


def ack_early(system: System, state: State) -> Iterator[Step]:
    """A long run's delivery is acked: from now on the row's lease is the safety copy."""
    if not system.acks_early:
        return
    for worker in state.workers:
        if worker.status is not Status.STOPPED:
            for hand in distinct_hands(worker, Phase.RUNNING):
                if hand.tag is not Tag.ACKED:
                    acked = with_hand(state, worker, hand, replace(hand, tag=Tag.ACKED))
                    yield Step(f"{worker.id} acks J{hand.job + 1}#{hand.dispatch} early", acked)


def settle(system: System, state: State) -> Iterator[Step]:
    """The outcome is written under the fence of the run token, or refused."""
    for worker in state.workers:
        if worker.status is not Status.STOPPED:
            for hand in distinct_hands(worker, Phase.ENDED):
                yield from _settled(system, state, worker, hand)


def _settled(system: System, state: State, worker: Worker, hand: Hand) -> Iterator[Step]:
    name = f"{worker.id} settles J{hand.job + 1} as {hand.ending}"
    interrupted = hand.ending == Ending.INTERRUPTED
    done = Hand(hand.job, hand.dispatch, Phase.SETTLED, hand.tag)
    written = replace(done, phase=Phase.RETURNING) if interrupted else done
    if hand.recorded and system.contract.settles_know_their_own:
        yield Step(f"{name} again: written before", with_hand(state, worker, hand, written))
        return
    republish = interrupted and hand.tag is Tag.ACKED and system.contract.republishes_interrupted
    job = settled(system, state.jobs[hand.job], hand.token, hand.ending, republish=republish)
    if job is None:
        yield Step(f"{name}: refused", with_hand(state, worker, hand, done))
        return
    after = with_job(state, hand.job, job)
    yield Step(f"{name}: written", with_hand(after, worker, hand, written))
    if budget := state.budget.spend("lost_answers"):
        unknown = with_hand(replace(after, budget=budget), worker, hand, replace(hand, recorded=True))
        yield Step(f"{name}: written, but the answer is lost", unknown, fault=True)


def forget(system: System, state: State) -> Iterator[Step]:
    """An error of ours ends a run's life: the delivery is held for a moment, and then is like one that just came."""
    for worker in state.workers:
        if worker.status is Status.STOPPED:
            continue
        for hand in distinct_hands(worker, Phase.CLAIMED, Phase.ENDED):
            if budget := state.budget.spend("errors"):
                again = with_hand(state, worker, hand, Hand(hand.job, hand.dispatch, tag=hand.tag))
                yield Step(
                    f"an error of ours in {worker.id}, about J{hand.job + 1}", replace(again, budget=budget), True
                )


def finish(system: System, state: State) -> Iterator[Step]:
    """A settled delivery is acked, or given back. On a dead channel neither means anything."""
    for worker in state.workers:
        if worker.status is Status.STOPPED:
            continue
        for hand in distinct_hands(worker, Phase.SETTLED, Phase.RETURNING):
            label = f"J{hand.job + 1}#{hand.dispatch}"
            done = with_hand(state, worker, hand, None)
            if hand.phase is Phase.SETTLED:
                yield Step(f"{worker.id} acks {label}", done)
            else:
                yield Step(f"{worker.id} gives {label} back", _returned(done, hand))


def drain(system: System, state: State) -> Iterator[Step]:
    """SIGTERM: nothing new is started, what was not started goes back, the row is removed, the process ends."""
    for worker in state.workers:
        if worker.status is Status.UP and (budget := state.budget.spend("shutdowns")):
            draining = with_worker(state, replace(worker, status=Status.DRAINING))
            yield Step(f"{worker.id} is told to stop", replace(draining, budget=budget))
        if worker.status is not Status.DRAINING:
            continue
        for hand in distinct_hands(worker, Phase.RECEIVED):
            given_back = _returned(with_hand(state, worker, hand, None), hand)
            yield Step(f"{worker.id} gives J{hand.job + 1}#{hand.dispatch} back", given_back)
        idle = not worker.hands and all(p.who != worker.letter for p in state.publishing)
        if idle:
            successor = booted(system, worker)
            yield Step(f"{worker.id} has drained, {successor.id} starts", with_worker(state, successor))
        elif not system.contract.leaves_when_idle and worker.lease is not Lease.GONE:
            left = with_worker(state, replace(worker, lease=Lease.GONE))
            yield Step(f"{worker.id} removes its row", left)


def _returned(state: State, hand: Hand) -> State:
    return with_copies(state, Copy(hand.job, hand.dispatch)) if hand.tag is Tag.UNACKED else state
