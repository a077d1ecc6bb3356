"""The producer and everybody's publishing: insert the row, publish, mark."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from jq_actors.model.job import JobState

from .changes import with_copies, with_job, with_publishing, without_publishing
from .state import NOBODY, PRODUCER, Copy, Job, Publishing, Row, State, Status
from .system import Step, System


def send(system: System, state: State) -> Iterator[Step]:
    """The producer stores the row, under a publish lease of its own; another producer just publishes."""
    for index, (plan, job) in enumerate(zip(system.jobs, state.jobs, strict=True)):
        if job.sent:
            continue
        if plan.foreign:
            sent = with_job(state, index, Job(sent=True))
            yield Step(f"another producer publishes J{index + 1}#1", with_copies(sent, Copy(index, 1)))
        elif plan.delayed:
            row = Row(JobState.SCHEDULED)
            yield Step(f"J{index + 1} is stored, scheduled", with_job(state, index, Job(sent=True, row=row)))
        else:
            row = Row(JobState.QUEUED, publisher=PRODUCER)
            stored = with_job(state, index, Job(sent=True, row=row))
            yield Step(f"J{index + 1} is stored", taken(system, stored, PRODUCER, index))


def taken(system: System, state: State, who: str, index: int) -> State:
    """``who`` holds the row's publish lease, and now has to publish its dispatch."""
    job = state.jobs[index]
    assert job.row is not None
    if system.slow_publishing:
        return with_publishing(state, Publishing(who, index, job.row.dispatch))
    marked = with_job(state, index, replace(job, row=replace(job.row, published=True, publisher=NOBODY)))
    return with_copies(marked, Copy(index, job.row.dispatch))


def publish(system: System, state: State) -> Iterator[Step]:
    """A dispatch in hand is published, and confirmed."""
    for item in state.publishing:
        if item.confirmed or not _can_act(state, item.who):
            continue
        label = f"J{item.job + 1}#{item.dispatch}"
        without = without_publishing(state, item)
        stored = with_copies(without, Copy(item.job, item.dispatch))
        confirmed = with_publishing(stored, replace(item, confirmed=True))
        yield Step(f"{_name(item.who)} publishes {label}", confirmed)
        if budget := state.budget.spend("unclear"):
            yield Step(
                f"{_name(item.who)} publishes {label}, the confirm is lost", replace(stored, budget=budget), True
            )
            refused = replace(_lease_released(without, item), budget=budget)
            yield Step(f"{_name(item.who)} cannot publish {label}", refused, True)


def mark(system: System, state: State) -> Iterator[Step]:
    """A confirmed dispatch is marked in its row, if that is still the one."""
    for item in state.publishing:
        if not item.confirmed or not _can_act(state, item.who):
            continue
        after, job = without_publishing(state, item), state.jobs[item.job]
        if _may_mark(system, state, item) and job.row is not None:
            row = replace(job.row, published=True, publisher=NOBODY)
            after = with_job(after, item.job, replace(job, row=row))
        yield Step(f"{_name(item.who)} marks J{item.job + 1}#{item.dispatch} as published", after)


def without_idle_marks(system: System, state: State) -> State:
    """Marks that will change nothing, whenever they come, are left out: they only multiply the states."""
    if all(not item.confirmed or _may_mark(system, state, item) for item in state.publishing):
        return state
    kept = tuple(item for item in state.publishing if not item.confirmed or _may_mark(system, state, item))
    return replace(state, publishing=kept)


def _may_mark(system: System, state: State, item: Publishing) -> bool:
    row = state.jobs[item.job].row
    if row is None or row.state.is_final or row.dispatch != item.dispatch:
        return False
    return row.publisher == item.who or not system.contract.marks_under_publish_lease


def publish_lease_ends(system: System, state: State) -> Iterator[Step]:
    """A row is free for any relay again, because its publisher has not marked it in time."""
    for index, job in enumerate(state.jobs):
        if job.row is None or job.row.publisher is NOBODY:
            continue
        free = with_job(state, index, replace(job, row=replace(job.row, publisher=NOBODY)))
        name = f"the publish lease of J{index + 1} runs out"
        holder_is_at_it = any(p.job == index and p.who == job.row.publisher for p in state.publishing)
        if not holder_is_at_it or not _can_act(state, job.row.publisher):
            yield Step(name, free)
        elif budget := state.budget.spend("slow"):
            yield Step(f"{name}, {_name(job.row.publisher)} being slow", replace(free, budget=budget), True)


def producer_dies(system: System, state: State) -> Iterator[Step]:
    for item in state.publishing:
        if item.who == PRODUCER and (budget := state.budget.spend("crashes")):
            yield Step(
                f"the producer of J{item.job + 1} dies",
                replace(without_publishing(state, item), budget=budget),
                True,
            )


def _lease_released(state: State, item: Publishing) -> State:
    job = state.jobs[item.job]
    if job.row is None or job.row.publisher != item.who:
        return state
    return with_job(state, item.job, replace(job, row=replace(job.row, publisher=NOBODY)))


def _can_act(state: State, who: str) -> bool:
    return who == PRODUCER or any(w.letter == who and w.status is not Status.STOPPED for w in state.workers)


def _name(who: str) -> str:
    return "the producer" if who == PRODUCER else f"{who}'s relay"
