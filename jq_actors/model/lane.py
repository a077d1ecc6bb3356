"""The queues of groups, and how workers share them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Lane:
    """The queue of one group, or of a partition of groups, in one of the user's queues."""

    queue: str
    """The user's name of the queue."""
    key: str
    """The group; of a partition, what its groups match."""
    seats: int = 1
    """How many consumers may serve it at once; with one, it is a single-active-consumer queue."""
    partition: tuple[int, int] | None = None
    """Its number and how many there are: then it carries several groups, and runs one job of each at a time."""
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Fairness:
    """How long the turn of a group lasts, with rows and without. Without rows, a lane's turn is its group's."""

    quantum: int = 50
    """Jobs, times the group's weight."""
    time_slice: timedelta = timedelta(seconds=1)
    """The same, for jobs that take long."""
    idle: timedelta = timedelta(seconds=60)
    """A lane that had no work for so long is deleted, without persistence."""
