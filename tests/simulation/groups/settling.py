"""A run ends: its outcome is written, and its group's turn given on, in one commit.

The plain way is one statement: it sees the rows (`look_of`), then takes its locks, and writes (`settle`). Whatever it
leaves alone is done under the locks from the beginning.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from jq_actors.model.group_rules import OnFailure
from jq_actors.model.job import JobState
from tests.simulation.rows import OUTCOMES
from tests.simulation.state import NOBODY, Ending, Lease, Status, Tag

from .changes import counted, forget_dead, with_group, with_hand, with_job, with_row
from .places import chained, given_on, is_locked, released, waits
from .publishing import taken
from .state import NO_JOB, NO_PLACE, Hand, Look, Phase, Row, State, Worker, distinct_hands, row_of, unfinished
from .system import Step, System


@dataclass(frozen=True, slots=True)
class Written:
    """What a settlement has done."""

    state: State
    next: int = NO_JOB
    """What runs from now on in its worker."""


def look_of(system: System, state: State, hand: Hand, ending: str, *, chains: bool) -> Look:
    """What the statement sees of the group before it has its locks."""
    own = row_of(state, hand.running)
    heads = _heads(system, state, own.group)
    is_plain = not _is_special(system, ending) and not system.numbered
    if any(head.state is not JobState.WAITING for _, head in heads) and system.contract.looks_at_the_stuck:
        is_plain = False
    comes_first = any(head.order < own.order for _, head in heads) and not _frees(system, ending)
    if comes_first and system.contract.yields_to_earlier_ones:
        is_plain = False
    next_ = heads[0][0] if heads and _frees(system, ending) else NO_JOB
    if not is_plain:
        return Look(is_plain=False, chains=chains)  # what it saw is not used
    group = state.groups[own.group]
    counts = (0, 0) if system.contract.counts_under_the_lock else (group.held, group.waiting)
    return Look(next_, chains=chains, counts=counts)


def _heads(system: System, state: State, group: int) -> list[tuple[int, Row]]:
    """The first jobs that hold no place, as many as there are places."""
    heads = [
        (index, row)
        for index, row in unfinished(state, group)
        if not row.has_place and row.order != NO_PLACE and not (system.overtake and row.state is JobState.RETRYING)
    ]
    return heads[: system.concurrency]


def _is_special(system: System, ending: str) -> bool:
    stops = ending == Ending.FAILED and system.on_failure is not OnFailure.CONTINUE
    return ending == Ending.INTERRUPTED or stops


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
    chains = hand.look.chains and (worker.lease is Lease.LIVE or not system.contract.chains_under_own_lease)
    asking = replace(hand, look=replace(hand.look, chains=chains))
    is_plain = hand.look.is_plain and (hand.look.is_current or not system.contract.checks_the_version)
    written = (_plainly if is_plain else _under_locks)(system, state, worker, asking)
    if written is None:
        yield Step(f"{name}: refused", with_hand(state, worker, hand, _put_down(hand)))
        return
    how = f"{name}{'' if is_plain else ', under the locks'}"
    how = how if written.next == NO_JOB else f"{how}, goes on with J{written.next + 1}"
    after, new = forget_dead(written.state), _after(system, written, hand)
    yield Step(how, with_hand(_published(system, state, after, worker), worker, hand, new))
    if budget := state.budget.spend("lost_answers"):
        asked = (NO_JOB, 0) if written.next == NO_JOB else (written.next, row_of(after, written.next).token)
        unknown = with_hand(after, worker, hand, replace(hand, recorded=True, chained=asked, look=Look()))
        yield Step(f"{how}, but the answer is lost", replace(unknown, budget=budget), True)


def _published(system: System, before: State, after: State, worker: Worker) -> State:
    """What was released to the worker is published by it."""
    for index, (old, new) in enumerate(zip(before.jobs, after.jobs, strict=True)):
        if old is not new and new.row is not None and new.row.publisher == worker.letter:
            after = taken(system, after, worker.letter, index)
    return after


def _recorded(system: System, state: State, worker: Worker, hand: Hand) -> State:
    """A repeated settlement: what the first try has written, and let run."""
    index, token = hand.chained
    if index == NO_JOB or not system.contract.repeated_settlements_find_their_chain:
        return with_hand(state, worker, hand, _after(system, Written(state), hand))
    row = row_of(state, index)
    is_ours = row.state is JobState.RUNNING and row.owner == worker.id and row.token == token
    return with_hand(state, worker, hand, _after(system, Written(state, index if is_ours else NO_JOB), hand))


def _after(system: System, written: Written, hand: Hand) -> Hand:
    if written.next != NO_JOB:
        token = row_of(written.state, written.next).token
        tag = hand.tag if system.contract.keeps_the_delivery else Tag.ACKED
        running = replace(
            hand, phase=Phase.RUNNING, running=written.next, is_own=False, token=token, ending="", tag=tag
        )
        return replace(running, look=Look(), recorded=False, chained=(NO_JOB, 0), lapsed=False)
    returns = hand.ending == Ending.INTERRUPTED and hand.is_own and hand.tag is Tag.UNACKED
    return _put_down(hand, Phase.RETURNING if returns else Phase.SETTLED)


def _put_down(hand: Hand, phase: Phase = Phase.SETTLED) -> Hand:
    return Hand(hand.job, hand.dispatch, hand.redelivered, phase, hand.tag)


def _plainly(system: System, state: State, worker: Worker, hand: Hand) -> Written | None:
    """The one statement, once it has its locks: the fence, and then the one that it has seen to be the next."""
    group = row_of(state, hand.running).group
    after = with_outcome(system, state, hand)
    if after is None and system.contract.frees_only_what_was_settled:
        return None
    after = counted(state, group, held=-1) if after is None else after
    is_stopped = state.groups[group].paused and system.contract.sees_pauses
    is_free = after.groups[group].held < system.concurrency
    next_ = hand.look.next
    if next_ == NO_JOB or is_stopped or not is_free or row_of(after, next_).state is not JobState.WAITING:
        return Written(_miscounted(system, after, group, hand, new=0))
    if hand.look.chains and worker.letter in system.jobs[next_].served_by:
        after = chained(after, next_, worker)
        return Written(_miscounted(system, after, group, hand, new=1), next_)
    after = released(system, after, next_, worker.letter)
    return Written(_miscounted(system, after, group, hand, new=1))


def _miscounted(system: System, state: State, group: int, hand: Hand, *, new: int) -> State:
    if system.contract.counts_under_the_lock:
        return state
    held, waiting = hand.look.counts
    frees = int(_frees(system, hand.ending))
    return with_group(state, group, replace(state.groups[group], held=held - frees + new, waiting=waiting - new))


def _under_locks(system: System, state: State, worker: Worker, hand: Hand) -> Written | None:
    """The outcome, what it does to its group, and then whoever's turn it is."""
    group = row_of(state, hand.running).group
    after = with_outcome(system, state, hand)
    if after is None:
        return None
    if hand.ending == Ending.FAILED:
        after = failed(system, after, group)
    if not _frees(system, hand.ending) and not system.contract.settlements_assign:
        return Written(after)
    follower = worker if hand.look.chains else None
    return Written(*given_on(system, after, group, publisher=worker.letter, worker=follower))


def with_outcome(system: System, state: State, hand: Hand) -> State | None:
    """The outcome is written and the place counted; ``None``: refused, the run does not hold the claim."""
    job, row = state.jobs[hand.running], row_of(state, hand.running)
    if not system.decisions.may_settle(row.state, row.token, hand.token):
        return None
    ended = replace(row, state=system.decisions.state_after(OUTCOMES[hand.ending]), token=0)
    if ended.state is JobState.QUEUED:
        is_chained = not hand.is_own and system.contract.interrupted_chain_is_unpublished
        ended = replace(ended, published=not is_chained and hand.tag is not Tag.ACKED)
    frees = _frees(system, hand.ending)
    ended = replace(ended, has_place=row.has_place and not frees)
    strays = job.strays + (hand.token != job.claim)
    after = with_job(state, hand.running, replace(job, row=ended, claim=0, strays=strays))
    after = counted(after, row.group, held=-1 if frees else 0)
    if ended.state is JobState.QUEUED and state.groups[row.group].paused:
        return counted(waits(system, after, hand.running), row.group, held=-1, waiting=1)
    return after


def failed(system: System, state: State, group: int) -> State:
    """A job has failed for good: its group's rule says what becomes of the others."""
    if system.on_failure is OnFailure.PAUSE:
        return with_group(state, group, replace(state.groups[group], paused=True))
    if system.on_failure is OnFailure.CANCEL_REST:
        state = all_cancelled(system, state, group)
        if not system.contract.counts_once:
            state = counted(state, group, held=-1)
    return state


def all_cancelled(system: System, state: State, group: int) -> State:
    """What does not run of a group is cancelled."""
    for index, row in unfinished(state, group):
        if row.state is not JobState.RUNNING:
            state = cancelled(system, state, index)
    return state


def cancelled(system: System, state: State, index: int) -> State:
    """A job that does not run is cancelled. Its place is free; it is not given yet."""
    row = row_of(state, index)
    frees = row.has_place and system.contract.cancel_frees_the_place
    over = replace(row, state=JobState.CANCELLED, has_place=False, published=False, publisher=NOBODY)
    after = with_row(state, index, over)
    return counted(after, row.group, held=-int(frees), waiting=-int(row.state is JobState.WAITING))
