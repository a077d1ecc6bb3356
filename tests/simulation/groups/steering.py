"""What operators do to groups. Each is one transaction: locks, what is wanted, then the places are given anew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from jq_actors.job import JobState
from jq_actors.turns import Places
from tests.simulation.state import NOBODY

from .changes import counted, with_group, with_row
from .places import applied, decided, fresh_order, given, is_locked, waits
from .settling import cancelled
from .state import NO_PLACE, Action, Row, State, group_name, row_of, unfinished
from .system import Step, System


@dataclass(frozen=True, slots=True)
class Deciding:
    """A transaction that has decided whom it gives places, and is still to write it."""

    action: Action
    groups: tuple[int, ...]
    places: tuple[Places, ...]


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
        assert isinstance(one, Deciding)
        after = _done(system, replace(state, deciding=()), one.action)
        for group, places in zip(one.groups, one.places, strict=True):
            after = applied(system, after, group, places)
        yield Step(f"{_told(one.action)}: written", after)


def _possible(system: System, state: State) -> Iterator[tuple[Action, str | None]]:
    for group, row in enumerate(state.groups):
        yield (Action("resume", group=group), None) if row.paused else (Action("pause", group=group), "pauses")
    for index, job in enumerate(state.jobs):
        row = job.row
        if row is None:
            continue
        if row.state in (JobState.FAILED, JobState.CANCELLED):
            yield Action("retry", index), "replays"
        elif row.state is not JobState.RUNNING and not row.state.is_final:
            yield Action("cancel", index), "cancels"
            if not system.numbered and row.order != NO_PLACE:
                if unfinished(state, row.group)[0][0] != index:
                    yield Action("front", index), "moves"
                for group in range(len(state.groups)):
                    if group != row.group:
                        yield Action("move", index, group), "moves"


def _groups_of(state: State, action: Action) -> tuple[int, ...]:
    if action.kind in ("pause", "resume"):
        return (action.group,)
    own = row_of(state, action.job).group
    return tuple(sorted({own, action.group})) if action.kind == "move" else (own,)


def _done(system: System, state: State, action: Action) -> State:
    """What is wanted, before the places are given anew."""
    index = action.job
    match action.kind:
        case "pause" | "resume":
            return with_group(state, action.group, replace(state.groups[action.group], paused=action.kind == "pause"))
        case "cancel":
            return cancelled(system, state, index)
        case "front":
            row = row_of(state, index)
            first = unfinished(state, row.group)[0][1].order
            return with_row(state, index, replace(row, order=first - 1))
        case "move":
            return _moved(system, state, index, action.group)
        case _:
            return _retried(system, state, index)


def _moved(system: System, state: State, index: int, group: int) -> State:
    row = row_of(state, index)
    is_waiting = int(row.state is JobState.WAITING)
    state = counted(state, row.group, held=-int(row.has_place), waiting=-is_waiting)
    moved = replace(row, group=group, order=fresh_order(system, state, index, group), has_place=False)
    state = with_row(state, index, moved)
    if row.state is JobState.QUEUED:
        state, is_waiting = waits(system, state, index), 1
    return counted(state, group, waiting=is_waiting)


def _retried(system: System, state: State, index: int) -> State:
    row = row_of(state, index)
    order = fresh_order(system, state, index, row.group) if row.order == NO_PLACE else row.order
    waiting = Row(JobState.WAITING, row.group, order, dispatch=row.dispatch, publisher=NOBODY)
    return counted(with_row(state, index, waiting), row.group, waiting=1)


def _told(action: Action) -> str:
    match action.kind:
        case "pause" | "resume":
            return f"{group_name(action.group)} is {action.kind}d"
        case "front":
            return f"J{action.job + 1} is moved to the front"
        case "move":
            return f"J{action.job + 1} is moved to {group_name(action.group)}"
        case "cancel":
            return f"J{action.job + 1} is cancelled"
        case _:
            return f"J{action.job + 1} is retried by an operator"
