"""What the store shows the guard of a group, made of the model's rows: production's `GroupView`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from jq_actors.job import JobId, JobState
from jq_actors.turns import GroupView, Leave, Member

from .state import Due, Row, State
from .system import System

NOW = datetime(2026, 1, 1, tzinfo=UTC)
_DUE_AT = {Due.NOW: NOW, Due.SOON: NOW + timedelta(seconds=1), Due.LATE: NOW + timedelta(hours=1)}


def unfinished(system: System, state: State, group: str) -> list[tuple[int, Row]]:
    """The jobs of a group that have not ended, in order, with their rows."""
    rows = ((index, state.jobs[index].row) for index in system.members(group))
    return [(index, row) for index, row in rows if row is not None and not row.state.is_final]


def view_of(system: System, state: State, group: str) -> GroupView:
    """What a claim looks at, under the group's lock."""
    open_rows = unfinished(system, state, group)
    counted = [(index, row) for index, row in open_rows if not (system.overtake and row.state is JobState.RETRYING)]
    return GroupView(
        members=tuple(_member(system, state, index, row) for index, row in counted[: system.concurrency]),
        running=sum(row.state is JobState.RUNNING for _, row in open_rows),
        concurrency=system.concurrency,
        paused="paused by an operator" if group in state.paused else None,
    )


def _member(system: System, state: State, index: int, row: Row) -> Member:
    before = (other for other in system.members(system.group_of(index)) if other < index)
    gap = next((other for other in before if not state.jobs[other].sent), None) if system.numbered else None
    queue = system.lane_of(index).queue
    return Member(JobId(str(index)), row.state, queue, row.dispatch, _DUE_AT[row.due], None if gap is None else gap + 1)


def is_blocked(system: System, state: State, group: str, queue: str) -> bool:
    """What a worker asks that leaves a lane of ``queue``: ``not JobStore.has_turn``."""
    view = view_of(system, state, group)
    return bool(view.members) and isinstance(system.decisions.turn_of(view, JobId(""), queue, NOW), Leave)
