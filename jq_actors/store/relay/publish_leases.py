"""The publish leases that this process holds: a mark counts only under the lease that was published under.

Else a very late mark would hide that a job, meanwhile claimed, lost and given back, has no copy at the broker.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from jq_actors.model.job import JobId

Key = tuple[JobId, int]
"""A dispatch: of a job, with its number."""


class PublishLeases:
    """What is being published from here, and until when nobody else publishes it."""

    def __init__(self) -> None:
        self._until: dict[Key, datetime] = {}

    def took(self, keys: Iterable[Key], until: datetime, now: datetime) -> None:
        """These rows were leased. Forgets those before that nobody marked or released in time."""
        while self._until:
            oldest = next(iter(self._until))
            if self._until[oldest] > now:
                break
            del self._until[oldest]
        self._until.update(dict.fromkeys(keys, until))

    def ended(self, keys: Sequence[Key]) -> list[tuple[Key, datetime]]:
        """These are published, or not to be: each with its lease, but for those that have none any more."""
        held = [(key, self._until.pop(key, None)) for key in keys]
        return [(key, until) for key, until in held if until is not None]
