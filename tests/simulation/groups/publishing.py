"""Sending and publishing: insert the row under the group's lock, publish what was admitted, mark."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from jq_actors.model.job import JobState
from tests.simulation.state import NOBODY, Status

from .changes import counted, with_copies, with_job, with_publishing, with_row, without_publishing
from .places import fresh_order, given, is_locked
from .state import NO_PLACE, PRODUCER, RELAY, Copy, Job, Publishing, Row, State, row_of
from .system import Step, System


def send(system: System, state: State) -> Iterator[Step]:
    """The producer stores the next row; those with positions come in any order. Another producer just publishes."""
    for index, (plan, job) in enumerate(zip(system.jobs, state.jobs, strict=True)):
        if job.sent or plan.withheld or is_locked(state, plan.group):
            continue
        before = range(index) if plan.position is None else ()
        if any(not state.jobs[other].sent and system.jobs[other].group == plan.group for other in before):
            continue
        sent = with_job(state, index, Job(sent=True))
        if plan.foreign:
            yield Step(f"another producer publishes J{index + 1}#1", with_copies(sent, Copy(index, 1)))
        elif plan.delayed:
            order = NO_PLACE if plan.position is None else plan.position
            scheduled = with_row(sent, index, Row(JobState.SCHEDULED, plan.group, order))
            yield Step(f"J{index + 1} is stored, scheduled", given(system, scheduled, plan.group))
        else:
            stored = admitted(system, sent, index, PRODUCER)
            row = row_of(stored, index)
            name = f"J{index + 1} is stored, {row.state}"
            yield Step(name, taken(system, stored, PRODUCER, index) if row.publisher == PRODUCER else stored)


def admitted(system: System, state: State, index: int, publisher: str = NOBODY) -> State:
    """A new row: queued with a place, if there is one for it; else it waits. Numbered ones take turns, as ever."""
    plan = system.jobs[index]
    group = state.groups[plan.group]
    row = Row(JobState.WAITING, plan.group, fresh_order(system, state, index, plan.group))
    if plan.position is not None:
        return given(system, counted(with_row(state, index, row), plan.group, waiting=1), plan.group)
    may_enter = not (group.paused or group.waiting) or not system.contract.admits_only_if_none_waits
    if not may_enter or group.held >= system.concurrency:
        return counted(with_row(state, index, row), plan.group, waiting=1)
    queued = replace(row, state=JobState.QUEUED, has_place=True, publisher=publisher)
    return counted(with_row(state, index, queued), plan.group, held=1)


def taken(system: System, state: State, who: str, index: int) -> State:
    """``who`` holds the row's publish lease, and has to publish its dispatch."""
    row = row_of(state, index)
    if who not in system.quick:
        return with_publishing(state, Publishing(who, index, row.dispatch))
    marked = with_row(state, index, replace(row, published=True, publisher=NOBODY))
    return with_copies(marked, Copy(index, row.dispatch))


def publish(system: System, state: State) -> Iterator[Step]:
    """A dispatch in hand is published, and confirmed."""
    for item in dict.fromkeys(state.publishing):
        if not item.confirmed and _can_act(state, item.who):
            stored = with_copies(without_publishing(state, item), Copy(item.job, item.dispatch))
            confirmed = with_publishing(stored, replace(item, confirmed=True))
            yield Step(f"{_name(item.who)} publishes J{item.job + 1}#{item.dispatch}", confirmed)


def mark(system: System, state: State) -> Iterator[Step]:
    """A confirmed dispatch is marked in its row, if that is still the one."""
    for item in dict.fromkeys(state.publishing):
        if item.confirmed and _can_act(state, item.who):
            after = without_publishing(state, item)
            if _may_mark(state, item):
                marked = replace(row_of(state, item.job), published=True, publisher=NOBODY)
                after = with_row(after, item.job, marked)
            yield Step(f"{_name(item.who)} marks J{item.job + 1}#{item.dispatch} as published", after)


def without_idle_marks(system: System, state: State) -> State:
    """Marks that will change nothing, whenever they come, are left out: they only multiply the states."""
    if not system.contract.released_takes_next_dispatch or all(
        not item.confirmed or _may_mark(state, item) for item in state.publishing
    ):
        return state
    kept = tuple(item for item in state.publishing if not item.confirmed or _may_mark(state, item))
    return replace(state, publishing=kept)


def _may_mark(state: State, item: Publishing) -> bool:
    row = row_of(state, item.job)
    return row.dispatch == item.dispatch and row.publisher == item.who


def publish_lease_ends(system: System, state: State) -> Iterator[Step]:
    """A row is free for any relay again, because its publisher is gone."""
    for index, job in enumerate(state.jobs):
        if job.row is None or job.row.publisher == NOBODY:
            continue
        if all(p.job != index or p.who != job.row.publisher for p in state.publishing):
            free = with_row(state, index, replace(job.row, publisher=NOBODY))
            yield Step(f"the publish lease of J{index + 1} runs out", free)


def producer_dies(system: System, state: State) -> Iterator[Step]:
    for item in dict.fromkeys(state.publishing):
        if item.who == PRODUCER and (budget := state.budget.spend("crashes")):
            gone = replace(without_publishing(state, item), budget=budget)
            yield Step(f"the producer of J{item.job + 1} dies", gone, True)


def _can_act(state: State, who: str) -> bool:
    if who in (PRODUCER, RELAY):
        return True
    return any(w.letter == who and w.status is not Status.STOPPED for w in state.workers)


def _name(who: str) -> str:
    return {PRODUCER: "the producer", RELAY: "the relay"}.get(who, who)
