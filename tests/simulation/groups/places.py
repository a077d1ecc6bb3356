"""What is done to a group under the lock of its row: its places are given, on production's `assign_places`.

Whoever changes a group calls `given` last. Counts are kept by what is done, as in the store; the checker counts rows.
"""

from __future__ import annotations

from dataclasses import replace

from jq_actors.model.job import JobId, JobState
from jq_actors.model.turn_rules import GroupView, Member, Places
from tests.simulation.rows import NOW
from tests.simulation.state import NOBODY

from .changes import counted, raised, with_group, with_job, with_row
from .state import NO_JOB, NO_PLACE, Row, State, Worker, fresh_token, row_of, unfinished
from .system import System

PAUSED = "paused by an operator"


def view_of(system: System, state: State, group: int) -> GroupView:
    """What is read of a group under its lock."""
    row = state.groups[group]
    open_ = [(i, r) for i, r in unfinished(state, group) if r.order != NO_PLACE]
    return GroupView(
        members=tuple(_member(system, index, job) for index, job in open_),
        concurrency=system.concurrency,
        overtake=system.overtake,
        paused=PAUSED if row.paused else None,
        next_position=row.next_position,
        ended=_ended(system, state, group) if row.next_position is not None else frozenset(),
    )


def _member(system: System, index: int, row: Row) -> Member:
    return Member(JobId(str(index)), row.state, "q", NOW, row.has_place, system.jobs[index].position)


def _ended(system: System, state: State, group: int) -> frozenset[int]:
    first = state.groups[group].next_position or 0
    jobs = zip(system.jobs, state.jobs, strict=True)
    numbers = {plan.position for plan, job in jobs if plan.group == group and job.is_over}
    return frozenset(number for number in numbers if number is not None and number >= first)


def decided(system: System, state: State, group: int) -> Places:
    """Who gets a place and who loses one."""
    return system.decisions.assign_places(view_of(system, state, group))


def given(system: System, state: State, *groups: int, publisher: str = NOBODY) -> State:
    """Their places are held by those whose turn it is. Those released are leased to ``publisher``, or to nobody."""
    for group in groups:
        state, _ = given_on(system, state, group, publisher=publisher)
    return state


def given_on(
    system: System, state: State, group: int, *, publisher: str = NOBODY, worker: Worker | None = None
) -> tuple[State, int]:
    """The same of one group; the first that is released runs in ``worker``, if there is one and it can.

    Also says which one that is.
    """
    return applied(system, state, group, decided(system, state, group), publisher=publisher, worker=worker)


def applied(
    system: System,
    state: State,
    group: int,
    places: Places,
    *,
    publisher: str = NOBODY,
    worker: Worker | None = None,
) -> tuple[State, int]:
    """``places`` are written, each as a compare-and-set."""
    follows = NO_JOB
    for member in places.withdrawn:
        state = withdrawn(system, state, int(member.job_id))
    for member in places.kept_back:
        state = _placed(state, int(member.job_id), has_place=True)
    for member in places.passed:
        state = _placed(state, int(member.job_id), has_place=False)
    for number, member in enumerate(places.released):
        index = int(member.job_id)
        if worker is not None and number == 0 and worker.letter in system.jobs[index].served_by:
            state, follows = chained(state, index, worker), index
        else:
            state = released(system, state, index, publisher)
    return with_group(state, group, replace(state.groups[group], next_position=places.next_position)), follows


def _placed(state: State, index: int, *, has_place: bool) -> State:
    row = row_of(state, index)
    changed = with_row(state, index, replace(row, has_place=has_place))
    return counted(changed, row.group, held=1 if has_place else -1)


def withdrawn(system: System, state: State, index: int) -> State:
    """It was queued, and waits again: its copies turn stale."""
    row = row_of(state, index)
    if row.state is not JobState.QUEUED:
        return state  # claimed just now: it runs, and keeps its place
    return counted(waits(system, state, index), row.group, held=-1, waiting=1)


def waits(system: System, state: State, index: int) -> State:
    """The job's row says that it waits; nothing is counted."""
    row = row_of(state, index)
    waiting = Row(JobState.WAITING, row.group, row.order, dispatch=row.dispatch, owner=row.owner, crashes=row.crashes)
    return with_row(state, index, waiting)


def released(system: System, state: State, index: int, publisher: str = NOBODY) -> State:
    """It waited, and is queued, under the next dispatch number, to be published."""
    row = row_of(state, index)
    if row.state is not JobState.WAITING:
        return state
    state = counted(state, row.group, held=1, waiting=-1)
    return queued_anew(system, state, index, publisher)


def queued_anew(system: System, state: State, index: int, publisher: str = NOBODY) -> State:
    """It is queued and holds a place, under the next dispatch number; nothing is counted."""
    if system.contract.released_takes_next_dispatch:
        state = raised(state, index)
    row = replace(row_of(state, index), state=JobState.QUEUED, has_place=True, published=False, publisher=publisher)
    return with_row(state, index, row)


def chained(state: State, index: int, worker: Worker) -> State:
    """It waited, and runs in ``worker``."""
    row = row_of(state, index)
    if row.state is not JobState.WAITING:
        return state
    state = raised(counted(state, row.group, held=1, waiting=-1), index)
    return granted(with_row(state, index, replace(row_of(state, index), has_place=True)), index, worker)


def granted(state: State, index: int, worker: Worker) -> State:
    """It runs in ``worker`` under a fresh token, and nobody has to publish it."""
    token, row = fresh_token(state, index), row_of(state, index)
    row = replace(row, state=JobState.RUNNING, token=token, owner=worker.id, published=False, publisher=NOBODY)
    return with_job(state, index, replace(state.jobs[index], row=row, claim=token))


def fresh_order(system: System, state: State, index: int, group: int) -> int:
    """The next number at the end of a group; in a numbered one, the job's own."""
    position = system.jobs[index].position
    if position is not None:
        return position
    rows = (job.row for job in state.jobs)
    return max((r.order for r in rows if r is not None and r.group == group and r.order != NO_PLACE), default=0) + 1


def ranked(system: System, state: State) -> State:
    """The same orders, in small numbers: only which is before which matters. Those of numbered groups are numbers."""
    if system.numbered:
        return state
    for group in range(len(state.groups)):
        rows = [(i, job.row) for i, job in enumerate(state.jobs) if job.row is not None and job.row.group == group]
        in_order = sorted((row.order, i) for i, row in rows if row.order != NO_PLACE)
        for rank, (order, index) in enumerate(in_order, 1):
            if order != rank:
                state = with_row(state, index, replace(row_of(state, index), order=rank))
    return state


def is_locked(state: State, *groups: int) -> bool:
    """Whether a transaction that has looked, and is still to write, holds the lock of one of them."""
    return any(not set(groups).isdisjoint(one.groups) for one in state.deciding)
