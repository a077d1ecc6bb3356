"""What the end of jobs does to their groups, in the transaction that writes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.events import Event, JobsReleased
from jq_actors.job import JobId

from .group_failures import FailedJob, GroupFailures
from .group_release import GroupReleases


class GroupEnds:
    """Stops groups whose jobs have failed, as their rules say, and releases what was parked behind those that ended.

    `lock` before the jobs' rows are written to, `ended` after.
    """

    def __init__(self, failures: GroupFailures, releases: GroupReleases) -> None:
        self._failures, self._releases = failures, releases

    @property
    def may_stop(self) -> bool:
        """Whether there are groups that a failed job stops: then `lock` comes before its row is written to."""
        return self._failures.may_stop

    async def lock(self, connection: AsyncConnection, failing: Iterable[JobId], now: datetime) -> Mapping[JobId, str]:
        """See `GroupFailures.lock`; ``failing``: the jobs, which run, that are to fail now."""
        return await self._failures.lock(connection, failing, now)

    async def ended(
        self,
        connection: AsyncConnection,
        locked: Mapping[JobId, str],
        failed: Sequence[FailedJob],
        groups: Iterable[str],
        now: datetime,
    ) -> list[Event]:
        """Jobs of ``groups`` do not run any more, nor will they soon; those that have ``failed`` for good.

        Returns what to tell once it is committed.
        """
        events = await self._failures.stop(connection, locked, failed, now) if locked else []
        names = set(groups)
        released = await self._releases.release(connection, names, now) if names else 0
        return [*events, JobsReleased(released)] if released else events
