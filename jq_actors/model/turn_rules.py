"""Whose turn it is in a group: who holds its places, as a pure function.

A job of a group that holds a *place* may be at the broker, run, or block the group; one that holds none waits in its
row. `assign_places` says who should hold them. Whatever changes a group does it under the lock of the group's row and
leaves behind what this function says; the plain cases (a job that is sent to the end, the next one after a job that
ended) are stated once more in SQL. Production (`store`) and the simulation (`tests/simulation`) call the same function.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from .job import JobId, JobState
from .lane import Fairness

BEHIND = "behind other jobs of its group"
"""The reason of a job that waits for its turn, as its row says it."""
PAUSED = "its group is paused"
SHARE_AFTER = 0.05
"""Seconds, times the group's weight, after which a turn ends with the job at hand when others wait for the slot."""


@dataclass(frozen=True, slots=True)
class Member:
    """An unfinished job of a group."""

    job_id: JobId
    state: JobState
    queue: str
    due_at: datetime
    """When a scheduled or retrying job may run."""
    has_place: bool
    position: int | None = None
    """Its number, in a numbered group."""


@dataclass(frozen=True, slots=True)
class GroupView:
    """A group, as it is under its lock."""

    members: tuple[Member, ...]
    """Unfinished jobs in order: all that hold a place, and behind them, or between, the first others, at least as many
    as there are places. Scheduled ones only in a numbered group."""
    concurrency: int = 1
    overtake: bool = False
    """Whether those behind it may pass a job that waits for its retry."""
    paused: str | None = None
    """Why an operator, or a failed job, has paused it."""
    next_position: int | None = None
    """The number that is the next to get a place; ``None``: the group is not numbered."""
    ended: frozenset[int] = frozenset()
    """Numbers, from ``next_position`` on, whose jobs have ended without a place: no job waits for them."""


@dataclass(frozen=True, slots=True)
class Places:
    """What has to change so that the right jobs hold the places of a group."""

    released: tuple[Member, ...] = ()
    """Waiting jobs that are to be queued."""
    withdrawn: tuple[Member, ...] = ()
    """Queued jobs that have to wait again: others come first, or the group is paused."""
    kept_back: tuple[Member, ...] = ()
    """Retrying or unhandled ones that get the place in which they block the group."""
    passed: tuple[Member, ...] = ()
    """Retrying or unhandled ones that lose theirs: others come first."""
    next_position: int | None = None

    @property
    def change(self) -> int:
        """How many more places are held after it."""
        return len(self.released) + len(self.kept_back) - len(self.withdrawn) - len(self.passed)


def assign_places(group: GroupView) -> Places:
    """Who gets a place of ``group`` and who loses one: the first in order hold them, and what runs keeps its own.

    After it: all places are held, or nothing that could start waits, or the group is paused.
    """
    walk = _Walk(group, group.concurrency - sum(member.state is JobState.RUNNING for member in group.members))
    for member in group.members:
        if member.state is not JobState.RUNNING:
            walk.meet(member)
    return Places(
        tuple(walk.released), tuple(walk.withdrawn), tuple(walk.kept_back), tuple(walk.passed), walk.next_position
    )


def why_it_waits(group: GroupView) -> str | None:
    """Why the first job of ``group`` that does not run cannot start; ``None``: it can, as soon as a worker takes it."""
    if group.paused is not None:
        return group.paused
    first = next((member for member in group.members if member.state is not JobState.RUNNING), None)
    if first is None:
        return None
    if _has_gap(first, group.next_position):
        return f"position {group.next_position} has not been sent"
    match first.state:
        case JobState.UNHANDLED:
            return f"blocked by job {first.job_id}, which no worker can run"
        case JobState.RETRYING | JobState.SCHEDULED:
            until = first.due_at.isoformat(timespec="seconds")
            return f"blocked by job {first.job_id}, {first.state.value} until {until}"
        case _:
            return None


def may_chain(done: int, seconds: float, fairness: Fairness, weight: int, *, others_wait: bool) -> bool:
    """Whether a worker goes on with the next job of a group itself, after ``done`` of its jobs in ``seconds``.

    Else the next one goes to the tail of its queue, behind the heads of other groups, and to any worker.
    ``others_wait``: for the slot.
    """
    if done >= fairness.quantum * weight or seconds >= fairness.time_slice.total_seconds() * weight:
        return False
    return not others_wait or seconds < SHARE_AFTER * weight


@dataclass(slots=True)
class _Walk:
    """One pass over the members, from the first to the last."""

    group: GroupView
    free: int
    next_position: int | None = None
    is_blocked: bool = False
    released: list[Member] = field(default_factory=list)
    withdrawn: list[Member] = field(default_factory=list)
    kept_back: list[Member] = field(default_factory=list)
    passed: list[Member] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._go_on_with(self.group.next_position)

    def meet(self, member: Member) -> None:
        if _has_gap(member, self.next_position):
            self.is_blocked = True
        match member.state:
            case JobState.QUEUED:
                if self._may_hold() and self.group.paused is None:
                    self._hold(member)
                else:
                    self.withdrawn.append(member)
            case JobState.WAITING:
                if self._may_hold() and self.group.paused is None:
                    self._hold(member)
                    self.released.append(member)
            case JobState.RETRYING | JobState.UNHANDLED:
                self._meet_stuck(member)
            case _:  # scheduled, in a numbered group: whoever comes behind it waits for it
                self.is_blocked = True

    def _meet_stuck(self, member: Member) -> None:
        is_passed = self.group.overtake and member.state is JobState.RETRYING
        # In a paused group no job gets a place; places are assigned when it is resumed.
        may_hold = self._may_hold() and not is_passed and (member.has_place or self.group.paused is None)
        if may_hold:
            self._hold(member)
        if may_hold and not member.has_place:
            self.kept_back.append(member)
        elif member.has_place and not may_hold:
            self.passed.append(member)

    def _may_hold(self) -> bool:
        return self.free > 0 and not self.is_blocked

    def _hold(self, member: Member) -> None:
        self.free -= 1
        if self.next_position is not None and member.position is not None:
            self._go_on_with(max(self.next_position, member.position + 1))

    def _go_on_with(self, position: int | None) -> None:
        while position is not None and position in self.group.ended:
            position += 1
        self.next_position = position


def _has_gap(member: Member, next_position: int | None) -> bool:
    return next_position is not None and member.position is not None and member.position > next_position
