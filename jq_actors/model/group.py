"""What a group is, for those who look at it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from .job import JobId


class GroupState(StrEnum):
    """What a group does."""

    RUNNING = "running"
    """Jobs of it run."""
    QUEUED = "queued"
    """Its head may run, as soon as a worker has room."""
    BLOCKED = "blocked"
    """Its head may not run now; ``reason`` says why."""
    PAUSED = "paused"
    """Nothing starts until it is resumed."""
    IDLE = "idle"
    """It has no job that could run: none at all, or only scheduled ones."""


@dataclass(frozen=True, slots=True)
class Group:
    """A group as it was when it was read."""

    name: str
    state: GroupState
    reason: str | None
    """Why it waits, for a person: ``blocked by job X, retrying until 12:03``, ``paused by ops: …``."""
    waiting: int
    """Unfinished jobs that do not run and are not scheduled."""
    running: int
    scheduled: int
    head: JobId | None
    """The first job that has not ended and is not scheduled."""
    oldest_due_at: datetime | None
    """Since when the oldest of the waiting ones could have run."""
    lag: timedelta | None
    """How long that is ago."""
    next_position: int | None
    """In a numbered group: the first number that has not had its turn."""
