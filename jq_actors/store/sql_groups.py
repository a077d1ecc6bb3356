"""The part of the store on SQL that concerns groups: one face over the modules that hold the statements."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from jq_actors.events import Events
from jq_actors.group import Group, GroupState
from jq_actors.groups import GroupRules
from jq_actors.job import Job, JobId, JobState

from .database import Database
from .group_failures import GroupFailures
from .group_moves import GroupMoves
from .group_reading import GroupReading
from .group_release import GroupReleases
from .group_rows import GroupPolicy, GroupRows
from .group_steering import GroupSteering
from .group_stops import GroupStops
from .group_sweep import GroupSweep
from .group_views import GroupViews
from .places import Places
from .reading import Reading
from .records import Dispatch, GroupPage, JobEnd, JobFilter, JobPage, StillGroup
from .relay_queries import RelayQueries
from .retries import Retries
from .still_queries import StillQueries
from .tables import Tables


class GroupParts:
    """What claims, insertions, settlements and the methods of `SqlGroups` have in common."""

    def __init__(self, database: Database, tables: Tables) -> None:
        dialect = database.dialect
        self.policy = GroupPolicy()
        self.rows = GroupRows(tables, dialect)
        self.views = GroupViews(tables, dialect, self.policy)
        self.releases = GroupReleases(tables, dialect, self.rows, self.views, self.policy)
        self.stops = GroupStops(tables, dialect)
        self.failures = GroupFailures(tables, dialect, self.rows, self.stops, self.policy)


class SqlGroups:
    """The group methods of a `JobStore`; `SqlStore` adds the others."""

    def __init__(
        self, database: Database, tables: Tables, events: Events, parts: GroupParts, relay: RelayQueries
    ) -> None:
        rows, views, releases, stops = parts.rows, parts.views, parts.releases, parts.stops
        self._events, self._policy = events, parts.policy
        self._failures = parts.failures
        self._steering = GroupSteering(database, tables, rows, views, releases, stops)
        self._moves = GroupMoves(database, tables, rows, releases)
        self._retries = Retries(database, tables)
        self._sweep = GroupSweep(database, tables, rows, releases, stops)
        self._still = StillQueries(database, tables, rows, views, relay)
        self._group_reading = GroupReading(database, tables, rows, views)
        self._reading = Reading(database, tables, Places(tables, database.dialect, rows, views))

    def now(self) -> datetime:
        """See JobStore."""
        raise NotImplementedError

    @property
    def rules(self) -> GroupRules:
        """See JobStore."""
        return self._policy.rules

    @rules.setter
    def rules(self, rules: GroupRules) -> None:
        self._policy.rules = rules

    @property
    def group_window(self) -> int | None:
        """See JobStore."""
        return self._policy.window

    @group_window.setter
    def group_window(self, window: int | None) -> None:
        self._policy.window = window

    # -- for workers and their relays

    async def has_turn(self, group: str, queue: str) -> bool:
        """See JobStore."""
        return await self._steering.has_turn(group, queue, self.now())

    async def release_waiting(self, limit: int) -> int:
        """See JobStore. Goes round: a look at some of the groups with parked jobs, the next one at those behind."""
        released, events = await self._sweep.release_waiting(limit, self.now())
        for event in events:
            self._events.emit(event)
        return released

    async def still_groups(self, before: datetime, limit: int) -> list[StillGroup]:
        """See JobStore."""
        return await self._still.still_groups(before, limit, self.now())

    async def take_lost(self, still: Sequence[StillGroup], limit: int, publish_lease: timedelta) -> list[Dispatch]:
        """See JobStore."""
        return await self._still.take_lost(still, limit, self.now(), publish_lease)

    # -- for operators

    async def pause_group(self, group: str, reason: str) -> bool:
        """See JobStore."""
        return await self._steering.pause(group, reason, self.now())

    async def resume_group(self, group: str) -> list[str] | None:
        """See JobStore."""
        return await self._steering.resume(group, self.now())

    async def cancel_group(self, group: str, reason: str) -> int:
        """See JobStore."""
        return await self._steering.cancel(group, reason, self.now())

    async def move(self, job_id: JobId, group: str | None) -> JobState | None:
        """See JobStore."""
        return await self._moves.move(job_id, group, self.now())

    async def retry(self, where: JobFilter, job_ids: Sequence[JobId], limit: int) -> list[JobId]:
        """See JobStore."""
        return await self._retries.retry(where, job_ids, limit, self.now())

    # -- reading

    async def get(self, job_id: JobId) -> Job | None:
        """See JobStore."""
        return await self._reading.get(job_id, self.now())

    async def find(self, where: JobFilter, limit: int, after: str | None) -> JobPage:
        """See JobStore."""
        return await self._reading.find(where, limit, after)

    async def end_of(self, job_id: JobId) -> JobEnd | None:
        """See JobStore."""
        return await self._reading.end_of(job_id)

    async def get_group(self, group: str) -> Group | None:
        """See JobStore."""
        return await self._group_reading.get(group, self.now())

    async def first_of_group(self, group: str, limit: int) -> list[Job]:
        """See JobStore."""
        return await self._reading.first_of_group(group, limit, self.now())

    async def find_groups(self, states: frozenset[GroupState], limit: int, after: str | None) -> GroupPage:
        """See JobStore."""
        return await self._group_reading.find(states, limit, after, self.now())
