"""How often the world may interfere. What is bounded here is what would make the model infinite."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Budget:
    """What may still happen. ``faults`` bounds the sum of the faults, each number its own kind."""

    faults: int = 0

    crashes: int = 0
    """A process is gone: a worker (with its relay), or the producer of one job."""
    cuts: int = 0
    """A worker loses its connection to the broker."""
    stops: int = 0
    """A worker is stopped (SIGSTOP, suspended, cut off from the database), and perhaps resumed later."""
    wipes: int = 0
    """The broker loses all messages."""
    outages: int = 0
    """The database is away for longer than the leases last."""
    lost_answers: int = 0
    """The database did what it was asked, and the answer was lost: the asker does not know."""
    errors: int = 0
    """An error of ours ends the life of a delivery: it is looked at again, as if it had just come."""
    duplicates: int = 0
    """The broker has a message once more."""
    unclear: int = 0
    """A publish that is not confirmed: stored, or not."""
    slow: int = 0
    """A publisher is so slow that its publish lease runs out before it marks the row."""
    false_alarms: int = 0
    """The relay takes a row for missing of which there still are copies."""

    # of groups only
    lobby_cuts: int = 0
    """The channel of a worker's tokens dies, and that of its lanes does not."""
    extra_tokens: int = 0
    """The lobby has a token that nobody needs."""
    reorders: int = 0
    """What the broker takes back it puts behind the others."""

    # no faults: what jobs and operators do
    retries: int = 0
    snoozes: int = 0
    shutdowns: int = 0
    strangers: int = 0
    """A worker gets a job whose actor it does not know."""
    undecodable: int = 0
    """A worker gets a job that it cannot decode."""
    long_retries: int = 0
    failures: int = 0
    replays: int = 0
    """An operator retries a failed job."""
    pauses: int = 0
    moves: int = 0
    """An operator moves a job to the front of its group, or into another one."""
    cancels: int = 0
    """An operator cancels a job that does not run."""
    deletes: int = 0
    """An idle lane is deleted."""
    races: int = 0
    """A lane is cancelled as idle while a delivery is on its way."""

    def spend(self, kind: str) -> Budget | None:
        """What is left after one of ``kind``; ``None`` when there is none left."""
        left: int = getattr(self, kind)
        if not left:
            return None
        if kind in _BEHAVIOUR:
            return replace(self, **{kind: left - 1})
        return replace(self, faults=self.faults - 1, **{kind: left - 1}) if self.faults else None


_BEHAVIOUR = frozenset(
    {
        "retries",
        "snoozes",
        "shutdowns",
        "strangers",
        "undecodable",
        "long_retries",
        "failures",
        "replays",
        "pauses",
        "moves",
        "cancels",
        "deletes",
        "races",
    }
)
