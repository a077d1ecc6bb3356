"""Whether a group takes in new jobs, and which of them have to wait from the start: decided over what was counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from jq_actors.errors import GroupFullError, NotStoredError, PositionTakenError

from .records import NewJob

FIRST_POSITION = 1


@dataclass(slots=True)
class GroupRoom:
    """A group, as one insertion after the other changes it."""

    name: str
    next_position: int | None = None
    """See `GroupRow`."""
    has_plain: bool = False
    """It has jobs without a position. Looked up only where positions are asked for."""
    used: set[int] = field(default_factory=set)
    """Of the positions asked for: those that jobs have."""
    max_size: int | None = None
    waiting: int = 0
    """Jobs that neither run nor are scheduled, counted up to ``max_size``."""
    window: int | None = None
    unfinished: int = 0
    """Counted up to ``window``; without scheduled ones."""

    def refusal(self, jobs: Sequence[NewJob], all_ids: Sequence[str]) -> NotStoredError | None:
        """Why these jobs, all of this group, cannot be taken in, if so. ``all_ids``: what is refused with them."""
        problem = self._wrong_position(jobs)
        if problem is not None:
            return PositionTakenError(problem, all_ids)
        arriving = sum(not is_scheduled(job) for job in jobs)
        if self.max_size is not None and arriving and self.waiting + arriving > self.max_size:
            return GroupFullError(
                f"Group {self.name!r} has {self.waiting} waiting job(s), its rule allows {self.max_size} (max_size):"
                f" there is no room for {arriving} more.",
                all_ids,
            )
        return None

    def take(self, job: NewJob) -> str | None:
        """Count ``job`` in; returns why it has to wait from the start, if so."""
        if job.position is None:
            self.has_plain = True
        else:
            self.used.add(job.position)
            self.next_position = self.next_position or FIRST_POSITION
        if is_scheduled(job):
            return None
        before = self.unfinished if job.position is None else job.position - (self.next_position or FIRST_POSITION)
        self.waiting += 1
        self.unfinished += 1
        return (
            None if self.window is None or before < self.window else f"behind {self.window} jobs of its group or more"
        )

    def _wrong_position(self, jobs: Sequence[NewJob]) -> str | None:
        asked: set[int] = set()
        is_numbered = self.next_position is not None or (not self.has_plain and jobs[0].position is not None)
        for job in jobs:
            position = job.position
            if position is None:
                if is_numbered:
                    return f"Group {self.name!r} is numbered: each of its jobs needs a position, and {job.id} has none."
                continue
            of_group = f"Position {position} of group {self.name!r}"
            if not is_numbered:
                return f"{of_group}: the group is not numbered, its first job had no position."
            if position < FIRST_POSITION:
                return f"{of_group}: numbers begin with {FIRST_POSITION}."
            if position in self.used or position in asked:
                return f"{of_group} is used already."
            if self.next_position is not None and position < self.next_position:
                return f"{of_group} is past: it goes on with {self.next_position}."
            asked.add(position)
        return None


def is_scheduled(job: NewJob) -> bool:
    """Whether its row starts ``scheduled``."""
    # By the row's own times, as its producer saw them: it publishes what was due then, and leaves the rest to us.
    return job.due_at > job.enqueued_at
