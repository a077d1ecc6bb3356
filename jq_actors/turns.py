"""Whose turn it is in a group: the order guard's decision, as a pure function.

A delivery from a lane says "there is something to do in this group"; which job runs is for the rows to say. So the
order holds also where the broker's differs: after a requeue, a second copy, an operator's retry, a wiped broker.
Production (`store.claims`) and the simulation (`tests/simulation`) call the same function.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from .job import JobId, JobState

LONGEST_WAIT = timedelta(seconds=60)
"""A head that has to wait longer, for its retry, does not keep a worker's place: its lane is left until then."""
LOOK_AGAIN = timedelta(milliseconds=500)
"""When a delivery is looked at again that waits for a run to end."""


@dataclass(frozen=True, slots=True)
class Member:
    """An unfinished job of a group."""

    job_id: JobId
    state: JobState
    queue: str
    dispatch: int
    due_at: datetime
    """Of a scheduled or retrying one: when it may run."""
    gap_before: int | None = None
    """In a numbered group: the smallest number before it that nobody has sent; ``None``: they are all there."""


@dataclass(frozen=True, slots=True)
class GroupView:
    """What a claim looks at, under the group's lock."""

    members: tuple[Member, ...]
    """The first unfinished jobs in order, as many as may run at once. Scheduled ones only in a numbered group; with
    ``overtake`` none that is retrying."""
    running: int
    """How many run, those that are not among ``members`` too."""
    concurrency: int = 1
    paused: str | None = None
    """Why an operator, or a failed job, has paused it."""


@dataclass(frozen=True, slots=True)
class Start:
    """Run this one: the delivery's own job, or the one whose turn it is instead."""

    member: Member


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing may run for the moment: keep the delivery and look again."""

    time: timedelta
    reason: str


@dataclass(frozen=True, slots=True)
class Leave:
    """Nothing may run for long: give the delivery back, and leave the lane until somebody offers it again."""

    reason: str


@dataclass(frozen=True, slots=True)
class Park:
    """The job waits for one that does not come by this lane: its row becomes ``waiting``, the delivery is acked."""

    reason: str


Turn = Start | Wait | Leave | Park


def turn_of(group: GroupView, job_id: JobId, queue: str, now: datetime) -> Turn:
    """What a delivery of ``job_id``, a job of ``group`` that is neither final nor running, from ``queue`` may start."""
    if group.paused is not None:
        return Leave(group.paused)
    if group.running >= group.concurrency:
        return _behind_a_run(group, queue)
    ready = [member for member in group.members if _may_start(member, now)]
    own = [member for member in ready if member.queue == queue]
    if own:
        # Its own job first: of several deliveries at once, each then starts another one.
        return Start(next((member for member in own if member.job_id == job_id), own[0]))
    if ready:
        return Park(f"behind job {ready[0].job_id}, which waits in queue {ready[0].queue}")
    return _behind_the_stuck(group, queue, now)


def _may_start(member: Member, now: datetime) -> bool:
    if member.gap_before is not None:
        return False
    match member.state:
        case JobState.QUEUED | JobState.WAITING:
            return True
        case JobState.RETRYING | JobState.SCHEDULED:
            return member.due_at <= now
        case _:
            return False


def _behind_a_run(group: GroupView, queue: str) -> Turn:
    running = [member for member in group.members if member.state is JobState.RUNNING]
    if running and all(member.queue != queue for member in running):
        return Park(f"behind job {running[0].job_id}, which runs in queue {running[0].queue}")
    return Wait(LOOK_AGAIN, f"behind job {running[0].job_id}, which runs" if running else "behind a job that runs")


def _behind_the_stuck(group: GroupView, queue: str, now: datetime) -> Turn:
    """None of the first ones may start: what for does the first of them wait that does not run?"""
    stuck = next((member for member in group.members if member.state is not JobState.RUNNING), None)
    if stuck is None:
        return Wait(LOOK_AGAIN, "its place is not known")  # it changed meanwhile
    if stuck.gap_before is not None:
        return Park(f"position {stuck.gap_before} has not been sent")
    reason = _why_stuck(stuck)
    if stuck.queue != queue:
        # Whatever moves it offers the lane of its own queue, not this one: only its end releases what is parked.
        return Park(reason)
    if stuck.state is JobState.UNHANDLED:
        return Leave(reason)
    time = stuck.due_at - now
    return Wait(max(time, timedelta()), reason) if time <= LONGEST_WAIT else Leave(reason)


def _why_stuck(stuck: Member) -> str:
    if stuck.state is JobState.UNHANDLED:
        return f"blocked by job {stuck.job_id}, which no worker can run"
    return f"blocked by job {stuck.job_id}, {stuck.state.value} until {stuck.due_at.isoformat(timespec='seconds')}"
