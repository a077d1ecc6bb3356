"""The publish leases that this process holds. A mark counts only if the dispatch was published under the same lease.

Otherwise a very late mark could hide that a job, claimed, lost and queued again since, has no copy at the broker.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from jq_actors.model.job import JobId

Key = tuple[JobId, int]
"""A dispatch: the job, and the number of the dispatch."""


class PublishLeases:
    """The dispatches that this process is publishing, and until when nobody else publishes them."""

    def __init__(self) -> None:
        self._until: dict[Key, datetime] = {}

    def took(self, keys: Iterable[Key], until: datetime, now: datetime) -> None:
        """Note rows that were leased, and forget earlier ones that nobody marked or released in time."""
        while self._until:
            oldest = next(iter(self._until))
            if self._until[oldest] > now:
                break
            del self._until[oldest]
        self._until.update(dict.fromkeys(keys, until))

    def ended(self, keys: Sequence[Key]) -> list[tuple[Key, datetime]]:
        """Take the leases of dispatches that were published, or will not be; those without a lease are left out."""
        held = [(key, self._until.pop(key, None)) for key in keys]
        return [(key, until) for key, until in held if until is not None]
