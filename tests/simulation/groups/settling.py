"""A run ends: its outcome is written, and its group's turn given on, in one commit.

The plain way is one statement: it sees the rows (`look_of`), then takes its locks, and writes (`settle`). Whatever it
leaves alone is done under the locks from the beginning.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from jq_actors.groups import OnFailure
from jq_actors.job import JobState
from tests.simulation.rows import OUTCOMES
from tests.simulation.state import NOBODY, Ending, Lease, Status, Tag

from .changes import counted, forget_dead, with_group, with_hand, with_job, with_row
from .places import chained, given, is_locked, released, waits
from .publishing import taken
from .state import NO_JOB, NO_PLACE, Hand, Look, Phase, Row, State, Worker, distinct_hands, row_of, unfinished
from .system import Step, System


def look_of(system: System, state: State, hand: Hand, ending: str, *, chains: bool) -> Look:
    """What the statement sees of the group before it has its locks."""
    own = row_of(state, hand.running)
    heads = [
        (index, row)
        for index, row in unfinished(state, own.group)
        if not row.has_place and row.order != NO_PLACE and not _is_passed(system, row)
    ]
    index, head = heads[0] if heads else (NO_JOB, None)
    is_plain = not _is_special(system, ending) and not system.numbered
    if head is not None and head.state is not JobState.WAITING and system.contract.looks_at_the_stuck:
        is_plain = False
    keeps = not _frees(system, ending)
    if keeps and head is not None and head.order < own.order and system.contract.yields_to_earlier_ones:
        is_plain = False
    return Look(index, is_plain, chains=chains)


def _is_special(system: System, ending: str) -> bool:
    stops = ending == Ending.FAILED and system.on_failure is not OnFailure.CONTINUE
    return ending == Ending.INTERRUPTED or stops


def _is_passed(system: System, row: Row) -> bool:
    return system.overtake and row.state is JobState.RETRYING


def _frees(system: System, ending: str) -> bool:
    """Whether a run that ends so gives its place away."""
    after = system.decisions.state_after(OUTCOMES[ending])
    if after is JobState.RETRYING:
        return system.overtake or not system.contract.retry_keeps_the_place
    return after.is_final


def settle(system: System, state: State) -> Iterator[Step]:
    """The locks are taken, and the outcome is written under the fence of the run token, or refused."""
    for worker in state.workers:
        if worker.status is Status.STOPPED:
            continue
        for hand in distinct_hands(worker, Phase.SETTLING):
            if not is_locked(state, row_of(state, hand.running).group):
                yield from _settled(system, state, worker, hand)


def _settled(system: System, state: State, worker: Worker, hand: Hand) -> Iterator[Step]:
    name = f"{worker.id} settles J{hand.running + 1} as {hand.ending}"
    if hand.recorded:
        yield Step(f"{name} again: written before", _recorded(system, state, worker, hand))
        return
    if not hand.look.chains or (worker.lease is not Lease.LIVE and system.contract.chains_under_own_lease):
        hand_ = replace(hand, look=replace(hand.look, chains=False))
    else:
        hand_ = hand
    is_plain = hand.look.is_plain and (hand.look.is_current or not system.contract.checks_the_version)
    written = _plainly(system, state, worker, hand_) if is_plain else _under_locks(system, state, worker, hand_)
    if written is None:
        yield Step(f"{name}: refused", with_hand(state, worker, hand, _put_down(hand)))
        return
    after, next_ = written
    how = f"{name}{'' if is_plain else ', under the locks'}"
    how = how if next_ == NO_JOB else f"{how}, goes on with J{next_ + 1}"
    after = forget_dead(after)
    yield Step(how, with_hand(after, worker, hand, _after(after, hand, next_)))
    if budget := state.budget.spend("lost_answers"):
        asked = (NO_JOB, 0) if next_ == NO_JOB else (next_, row_of(after, next_).token)
        unknown = replace(hand, recorded=True, chained=asked)
        yield Step(
            f"{how}, but the answer is lost", replace(with_hand(after, worker, hand, unknown), budget=budget), True
        )


def _recorded(system: System, state: State, worker: Worker, hand: Hand) -> State:
    """A repeated settlement: what the first try has written, and let run."""
    index, token = hand.chained
    if index == NO_JOB or not system.contract.repeated_settlements_find_their_chain:
        return with_hand(state, worker, hand, _after(state, hand, NO_JOB))
    row = row_of(state, index)
    is_ours = row.state is JobState.RUNNING and row.owner == worker.id and row.token == token
    return with_hand(state, worker, hand, _after(state, hand, index if is_ours else NO_JOB))


def _after(state: State, hand: Hand, next_: int) -> Hand:
    if next_ != NO_JOB:
        running = replace(hand, phase=Phase.RUNNING, running=next_, token=row_of(state, next_).token, ending="")
        return replace(running, look=Look(), recorded=False, chained=(NO_JOB, 0), lapsed=False)
    is_own = hand.running == hand.job and row_of(state, hand.job).state is JobState.QUEUED
    returns = hand.ending == Ending.INTERRUPTED and is_own and hand.tag is Tag.UNACKED
    return _put_down(hand, Phase.RETURNING if returns else Phase.SETTLED)


def _put_down(hand: Hand, phase: Phase = Phase.SETTLED) -> Hand:
    return Hand(hand.job, hand.dispatch, hand.redelivered, phase, hand.tag)


def _plainly(system: System, state: State, worker: Worker, hand: Hand) -> tuple[State, int] | None:
    """The one statement, once it has its locks: the fence, and then the one that it has seen to be the next."""
    group = row_of(state, hand.running).group
    after = _with_outcome(system, state, hand)
    if after is None:
        if system.contract.frees_only_what_was_settled:
            return None
        after = counted(state, group, held=-1)
    is_stopped = state.groups[group].paused and system.contract.sees_pauses
    if not _frees(system, hand.ending) or hand.look.next == NO_JOB or is_stopped:
        return after, NO_JOB
    return _given_on(system, after, worker, hand, hand.look.next)


def _given_on(system: System, state: State, worker: Worker, hand: Hand, next_: int) -> tuple[State, int]:
    if row_of(state, next_).state is not JobState.WAITING:
        return state, NO_JOB
    if hand.look.chains and worker.letter in system.jobs[next_].known_to:
        return chained(state, next_, worker), next_
    after = released(system, state, next_, worker.letter)
    return taken(system, after, worker.letter, next_), NO_JOB


def _under_locks(system: System, state: State, worker: Worker, hand: Hand) -> tuple[State, int] | None:
    """The outcome, what it does to its group, and then whoever's turn it is."""
    group = row_of(state, hand.running).group
    after = _with_outcome(system, state, hand)
    if after is None:
        return None
    if hand.ending == Ending.FAILED:
        after = failed(system, after, group)
    waiting = [index for index, row in unfinished(after, group) if row.state is JobState.WAITING]
    after = given(system, after, group)
    for index in waiting:
        if row_of(after, index).state is JobState.QUEUED:
            # It was released a moment ago, in this very transaction: it may as well run here, or be published here.
            return _first_released(system, after, worker, hand, index)
    return after, NO_JOB


def _first_released(system: System, state: State, worker: Worker, hand: Hand, index: int) -> tuple[State, int]:
    row = row_of(state, index)
    if hand.look.chains and worker.letter in system.jobs[index].known_to:
        back = with_row(state, index, replace(row, state=JobState.WAITING))
        return chained(counted(back, row.group, held=-1, waiting=1), index, worker), index
    leased = with_row(state, index, replace(row, publisher=worker.letter))
    return taken(system, leased, worker.letter, index), NO_JOB


def _with_outcome(system: System, state: State, hand: Hand) -> State | None:
    """The outcome is written and the place counted; ``None``: refused, the run does not hold the claim."""
    job, row = state.jobs[hand.running], row_of(state, hand.running)
    if not system.decisions.may_settle(row.state, row.token, hand.token):
        return None
    ended = replace(row, state=system.decisions.state_after(OUTCOMES[hand.ending]), token=0, owner=NOBODY)
    if ended.state is JobState.QUEUED:
        unpublished = hand.running != hand.job and system.contract.interrupted_chain_is_unpublished
        ended = replace(ended, published=row.published and not unpublished and hand.tag is not Tag.ACKED)
    else:
        ended = replace(ended, published=False)
    frees = _frees(system, hand.ending)
    ended = replace(ended, has_place=row.has_place and not frees)
    strays = job.strays + (hand.token != job.claim)
    overtaken = job.overtaken or (system.overtake and ended.state is JobState.RETRYING)
    after = with_job(state, hand.running, replace(job, row=ended, claim=0, strays=strays, overtaken=overtaken))
    after = counted(after, row.group, held=-1 if frees else 0)
    if ended.state is JobState.QUEUED and state.groups[row.group].paused:
        return counted(waits(system, after, hand.running), row.group, held=-1, waiting=1)
    return after


def failed(system: System, state: State, group: int) -> State:
    """A job has failed for good: its group's rule says what becomes of the others."""
    if system.on_failure is OnFailure.PAUSE:
        return with_group(state, group, replace(state.groups[group], paused=True))
    if system.on_failure is OnFailure.CANCEL_REST:
        for index, row in unfinished(state, group):
            if row.state is not JobState.RUNNING:
                state = cancelled(system, state, index)
    return state


def cancelled(system: System, state: State, index: int) -> State:
    """A job that does not run is cancelled. Its place is free; it is not given yet."""
    row = row_of(state, index)
    frees = row.has_place and system.contract.cancel_frees_the_place
    over = replace(row, state=JobState.CANCELLED, has_place=False, published=False)
    after = with_row(state, index, replace(over, publisher=NOBODY))
    return counted(after, row.group, held=-int(frees), waiting=-int(row.state is JobState.WAITING))
