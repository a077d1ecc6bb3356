"""What must hold: in every state, over every step, and when nothing moves any more."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from jq_actors.model.job import TRANSITIONS, JobState

from .state import PRODUCER, Hand, Job, Phase, Row, State, Status, copies_of
from .system import Plan, System


class Broken(StrEnum):
    """The kinds of violation."""

    TRANSITION = "a transition that does not exist"
    OVERLAP = "two runs of one job overlap, and no lease had run out"
    STRAY_WRITE = "a run that had lost its claim wrote an outcome"
    WRITTEN_TWICE = "a run wrote two outcomes"
    STALE_RUN = "a copy of an older dispatch was run"
    RUN_AGAIN = "a job that had ended began again"
    LAST_COPY_GONE = "a job counts as published, and its last copy was thrown away"
    CRASHES = "crashes are miscounted"
    ATTEMPTS = "attempts are miscounted"


_LEGAL = TRANSITIONS - {(state, JobState.RUNNING) for state in JobState if state is not JobState.QUEUED}
"""Those of a job without a group: it runs only when it is queued."""
_NEW = frozenset({None, JobState.SCHEDULED, JobState.QUEUED, JobState.RUNNING})
"""The states that a row may begin in: running when it is adopted."""


def broken_by_step(system: System, before: State, after: State) -> Iterator[tuple[Broken, str]]:
    """What a step did wrong."""
    for number, (old, new) in enumerate(zip(before.jobs, after.jobs, strict=True), 1):
        if old is new:
            continue
        was, is_now = _state(old), _state(new)
        if old.is_over and not new.is_over:
            yield Broken.RUN_AGAIN, f"J{number} was {was or 'pruned'} and is {is_now}"
        elif not _legal(old.row, new.row):
            yield Broken.TRANSITION, f"J{number} went from {was} to {is_now}"


def _legal(old: Row | None, new: Row | None) -> bool:
    if old is None or new is None:
        return (None if new is None else new.state) in _NEW
    return old.state is new.state or (old.state, new.state) in _LEGAL


def _state(job: Job) -> JobState | None:
    return None if job.row is None else job.row.state


def broken_in(system: System, state: State) -> Iterator[tuple[Broken, str]]:
    """What is wrong in a state."""
    for index, (plan, job) in enumerate(zip(system.jobs, state.jobs, strict=True)):
        name = f"J{index + 1}"
        if job.strays:
            yield Broken.STRAY_WRITE, f"{name} is {_state(job)} now"
        if job.outcomes > 1:
            yield Broken.WRITTEN_TWICE, f"{name} is {_state(job)} now"
        yield from _copies(plan, state, index, job)
        if job.row is not None:
            yield from _counts(system, name, job, job.row)
        hands = [hand for worker in state.workers for hand in worker.hands if hand.job == index]
        yield from _runs(name, hands, job.row)


def _runs(name: str, hands: list[Hand], row: Row | None) -> Iterator[tuple[Broken, str]]:
    running = [hand for hand in hands if hand.phase is Phase.RUNNING and not hand.lapsed]
    if len(running) > 1:
        yield Broken.OVERLAP, f"{name} runs {len(running)} times at once"
    if row is not None and row.state is JobState.RUNNING:
        for hand in hands:
            if hand.token == row.token and hand.dispatch != row.dispatch:
                yield Broken.STALE_RUN, f"{name} runs from dispatch {hand.dispatch}, {row.dispatch} is the valid one"


def _copies(plan: Plan, state: State, index: int, job: Job) -> Iterator[tuple[Broken, str]]:
    if job.excused or job.is_over or not job.sent:
        return
    if job.row is None:
        gone = copies_of(state, index, 1) == 0
    else:
        waits = job.row.state is JobState.QUEUED and job.row.published
        gone = waits and copies_of(state, index, job.row.dispatch) == 0 and not _on_its_way(state, index, job.row)
    if gone:
        yield Broken.LAST_COPY_GONE, f"nothing but a count of the broker's messages would find J{index + 1} again"


def _on_its_way(state: State, index: int, row: Row) -> bool:
    return any(p.job == index and p.dispatch == row.dispatch and not p.confirmed for p in state.publishing)


def _counts(system: System, name: str, job: Job, row: Row) -> Iterator[tuple[Broken, str]]:
    if row.crashes != job.lost:
        yield Broken.CRASHES, f"{name} lost its worker {job.lost} times, {row.crashes} are counted"
    elif job.lost >= system.max_crashes and not row.state.is_final:
        yield Broken.CRASHES, f"{name} lost its worker {job.lost} times and is {row.state}"
    elif job.lost < system.max_crashes and row.state is JobState.FAILED:
        yield Broken.CRASHES, f"{name} lost its worker {job.lost} times only, and is failed"
    if row.state is not JobState.RUNNING and row.attempt != job.counted:
        yield Broken.ATTEMPTS, f"{name} had {job.counted} attempts that count, {row.attempt} are counted"


def unfinished_in(system: System, state: State) -> str | None:
    """What is left to do in a state in which nothing moves; ``None``: all is done."""
    for number, job in enumerate(state.jobs, 1):
        lost_before_it_had_a_row = job.excused and job.row is None
        if not job.is_over and not lost_before_it_had_a_row:
            return f"J{number} is {_state(job) or 'nowhere'}"
    moving = [worker for worker in state.workers if worker.status is not Status.STOPPED]
    in_hand = any(worker.hands for worker in moving)
    in_hand |= any(item.who in (PRODUCER, *(worker.letter for worker in moving)) for item in state.publishing)
    if state.broker or in_hand:
        return "all jobs are final, and messages are left"
    return None
