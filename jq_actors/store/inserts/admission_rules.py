"""Whether a group takes new jobs, and which of them get a place at once. These rules decide over counts alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from jq_actors.errors import GroupFullError, NotStoredError, PositionTakenError
from jq_actors.store.groups.rows import GroupRow
from jq_actors.store.records import NewJob

FIRST_POSITION = 1


@dataclass(slots=True)
class AdmittingGroup:
    """A group, changed by one insertion after the other."""

    row: GroupRow
    concurrency: int
    has_plain: bool = False
    """Whether it has jobs without a position. Looked up only if a new job asks for a position."""
    used: set[int] = field(default_factory=set)
    """Those of the requested positions that jobs already have."""
    max_size: int | None = None
    not_running: int = 0
    """The number of jobs that neither run nor are scheduled, counted up to ``max_size``."""

    def refusal(self, jobs: Sequence[NewJob], all_ids: Sequence[str]) -> NotStoredError | None:
        """Why the group cannot take these jobs; ``None``: it can. ``all_ids``: the jobs that are refused with them."""
        problem = self._wrong_position(jobs)
        if problem is not None:
            return PositionTakenError(problem, all_ids)
        arriving = sum(not is_scheduled(job) for job in jobs)
        if self.max_size is not None and arriving and self.not_running + arriving > self.max_size:
            return GroupFullError(
                f"Group {self.row.name!r} has {self.not_running} waiting job(s), its rule allows {self.max_size}"
                f" (max_size): there is no room for {arriving} more.",
                all_ids,
            )
        return None

    def take(self, job: NewJob) -> bool:
        """Count ``job``; returns whether it gets a place. In a numbered group all wait until turns are given."""
        row = self.row
        if job.position is None:
            self.has_plain = True
        else:
            self.used.add(job.position)
            row = replace(row, next_position=row.next_position or FIRST_POSITION)
        gets_place = not is_scheduled(job) and row.next_position is None and may_enter(row, self.concurrency)
        if not is_scheduled(job):
            self.not_running += 1
            row = replace(row, held=row.held + gets_place, waiting=row.waiting + (not gets_place))
        self.row = row
        return gets_place or is_scheduled(job)

    def _wrong_position(self, jobs: Sequence[NewJob]) -> str | None:
        asked: set[int] = set()
        is_numbered = self.row.next_position is not None or (not self.has_plain and jobs[0].position is not None)
        for job in jobs:
            position = job.position
            if position is None:
                if is_numbered:
                    return f"Group {self.row.name!r} is numbered: its jobs need positions, and {job.id} has none."
                continue
            of_group = f"Position {position} of group {self.row.name!r}"
            if not is_numbered:
                return f"{of_group}: the group is not numbered, its first job had no position."
            if position < FIRST_POSITION:
                return f"{of_group}: numbers begin with {FIRST_POSITION}."
            if position in self.used or position in asked:
                return f"{of_group} is used already."
            if self.row.next_position is not None and position < self.row.next_position:
                return f"{of_group} is past: it goes on with {self.row.next_position}."
            asked.add(position)
        return None


def may_enter(row: GroupRow, concurrency: int) -> bool:
    """Whether the next job that comes to the end of a group that is not numbered gets a place at once."""
    return row.paused is None and row.waiting == 0 and row.held < concurrency


def is_scheduled(job: NewJob) -> bool:
    """Whether its row starts ``scheduled``."""
    # By the times that the producer wrote: it publishes what was due then, and leaves the rest to us.
    return job.due_at > job.enqueued_at
