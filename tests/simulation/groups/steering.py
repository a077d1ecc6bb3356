"""What operators do to groups. Each is one transaction: locks, what is wanted, then the places are given anew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from jq_actors.model.job import JobState

from .changes import counted, with_group, with_row
from .places import applied, decided, fresh_order, given, is_locked, ranked, waits
from .settling import all_cancelled, cancelled
from .state import NO_PLACE, Action, Deciding, Row, State, group_name, row_of, unfinished
from .system import Step, System


def act(system: System, state: State) -> Iterator[Step]:
    """An operator does what the budget still allows; resuming costs nothing, for it happens some day."""
    for action, kind in _possible(system, state):
        budget = state.budget if kind is None else state.budget.spend(kind)
        groups = _groups_of(state, action)
        if budget is None or is_locked(state, *groups):
            continue
        allowed = replace(state, budget=budget)
        after = _done(system, allowed, action)
        if system.contract.decides_on_what_it_writes:
            yield Step(_told(action), given(system, after, *groups), kind is not None)
        else:
            places = tuple(decided(system, after, group) for group in groups)
            deciding = replace(allowed, deciding=(Deciding(action, groups, places),))
            yield Step(f"{_told(action)}: looked", deciding, kind is not None)


def write(system: System, state: State) -> Iterator[Step]:
    """What was decided is written, although jobs were claimed meanwhile. Only where the contract is broken."""
    for one in state.deciding:
        free = replace(state, deciding=())
        job = None if one.action.job < 0 else row_of(state, one.action.job)
        if job is not None and job.state is JobState.RUNNING:
            yield Step(f"{_told(one.action)}: refused, it was claimed just now", free)
            continue
        after = _done(system, free, one.action)
        for group, places in zip(one.groups, one.places, strict=True):
            after, _ = applied(system, after, group, places)
        yield Step(f"{_told(one.action)}: written", after)


def _possible(system: System, state: State) -> Iterator[tuple[Action, str | None]]:
    for group, of_group in enumerate(state.groups):
        yield (Action("resume", group=group), None) if of_group.paused else (Action("pause", group=group), "pauses")
        if any(r.state is not JobState.RUNNING for _, r in unfinished(state, group)):
            yield Action("clear", group=group), "cancels"
    for index, job in enumerate(state.jobs):
        row = job.row
        if row is None:
            continue
        if row.state in (JobState.FAILED, JobState.CANCELLED):
            yield Action("retry", index), "replays"
        elif row.state is not JobState.RUNNING and not row.state.is_final:
            yield Action("cancel", index), "cancels"
            if not system.numbered:
                yield from _moves(state, index, row)


def _moves(state: State, index: int, row: Row) -> Iterator[tuple[Action, str]]:
    if row.order != NO_PLACE and unfinished(state, row.group)[0][0] != index:
        yield Action("front", index), "moves"
    for group in range(len(state.groups)):
        if group != row.group:
            yield Action("move", index, group), "moves"


def _groups_of(state: State, action: Action) -> tuple[int, ...]:
    if action.kind in ("pause", "resume", "clear"):
        return (action.group,)
    own = row_of(state, action.job).group
    return tuple(sorted({own, action.group})) if action.kind == "move" else (own,)


def _done(system: System, state: State, action: Action) -> State:
    """What is wanted, before the places are given anew."""
    index = action.job
    match action.kind:
        case "pause" | "resume":
            return with_group(state, action.group, replace(state.groups[action.group], paused=action.kind == "pause"))
        case "clear":
            return all_cancelled(system, state, action.group)
        case "cancel":
            return cancelled(system, state, index)
        case "front":
            row = row_of(state, index)
            first = unfinished(state, row.group)[0][1].order
            return _placed(system, state, index, row.group, first - 1)
        case "move":
            scheduled = row_of(state, index).state is JobState.SCHEDULED
            order = NO_PLACE if scheduled else fresh_order(system, state, index, action.group)
            return _placed(system, state, index, action.group, order)
        case _:
            return _retried(system, state, index)


def _placed(system: System, state: State, index: int, group: int, order: int) -> State:
    """Without a place, which it gets if it is one of the first; one that was queued waits, its copies are stale."""
    row = row_of(state, index)
    state = counted(state, row.group, held=-int(row.has_place), waiting=-int(row.state is JobState.WAITING))
    state = with_row(state, index, replace(row, group=group, order=order, has_place=False))
    if row.state in (JobState.QUEUED, JobState.WAITING):
        state = counted(waits(system, state, index), group, waiting=1)
    return ranked(system, state)


def _retried(system: System, state: State, index: int) -> State:
    row = row_of(state, index)
    order = fresh_order(system, state, index, row.group) if row.order == NO_PLACE else row.order
    waiting = Row(JobState.WAITING, row.group, order, dispatch=row.dispatch, owner=row.owner)
    return counted(with_row(state, index, waiting), row.group, waiting=1)


def _told(action: Action) -> str:
    match action.kind:
        case "pause" | "resume":
            return f"{group_name(action.group)} is {action.kind}d"
        case "clear":
            return f"all of {group_name(action.group)} is cancelled"
        case "front":
            return f"J{action.job + 1} is moved to the front"
        case "move":
            return f"J{action.job + 1} is moved to {group_name(action.group)}"
        case "cancel":
            return f"J{action.job + 1} is cancelled"
        case _:
            return f"J{action.job + 1} is retried by an operator"
