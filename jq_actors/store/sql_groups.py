"""The part of the SQL store that concerns groups: a facade over the modules that hold the statements."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from jq_actors.events import Events, GroupsMended
from jq_actors.model.group import Group, GroupState
from jq_actors.model.group_rules import GroupRules
from jq_actors.model.job import Job, JobId, JobState
from jq_actors.store.database.database import Database
from jq_actors.store.groups.moves import GroupMoves
from jq_actors.store.groups.repair import GroupRepair
from jq_actors.store.groups.retries import Retries
from jq_actors.store.groups.rows import GroupPolicy, GroupRows
from jq_actors.store.groups.snapshots import GroupSnapshots
from jq_actors.store.groups.steering import GroupSteering
from jq_actors.store.groups.stops import GroupStops
from jq_actors.store.groups.sweep import GroupSweep
from jq_actors.store.groups.turns import Fits, GroupTurns
from jq_actors.store.inserts.group_intake import GroupIntake
from jq_actors.store.reading.group_reading import GroupReading
from jq_actors.store.reading.places import Places
from jq_actors.store.reading.reading import Reading
from jq_actors.store.rows.dispatches import Bodies
from jq_actors.store.rows.workers import Workers

from .records import GroupPage, JobEnd, JobFilter, JobPage
from .tables import Tables


class GroupParts:
    """The parts that claims, insertions, settlements and the methods of `SqlGroups` share."""

    def __init__(self, database: Database, tables: Tables, workers: Workers) -> None:
        dialect = database.dialect
        self.policy = GroupPolicy()
        self.bodies = Bodies(tables, dialect)
        self.rows = GroupRows(tables, dialect)
        self.views = GroupSnapshots(tables, dialect, self.policy)
        self.turns = GroupTurns(tables, dialect, self.rows, self.views, self.bodies, workers)
        self.stops = GroupStops(tables, self.policy)
        self.intake = GroupIntake(tables, dialect, self.policy)


class SqlGroups:
    """The group methods of a `JobStore`. `SqlStore` adds the others."""

    def __init__(self, database: Database, tables: Tables, events: Events, parts: GroupParts) -> None:
        policy, rows, views, turns, stops = parts.policy, parts.rows, parts.views, parts.turns, parts.stops
        self._events, self._policy, self._turns = events, policy, turns
        self._steering = GroupSteering(database, tables, rows, turns, stops)
        self._moves = GroupMoves(database, tables, rows, turns)
        self._retries = Retries(database, tables, rows, turns)
        self._sweep = GroupSweep(database, tables, policy, rows, views, turns, stops)
        self._repair = GroupRepair(database, tables, rows, views, turns)
        self._group_reading = GroupReading(database, tables, rows, views)
        self._reading = Reading(database, tables, Places(tables, database.dialect, rows, views))

    def now(self) -> datetime:
        """Return the current database time; `SqlStore` implements this."""
        raise NotImplementedError

    @property
    def rules(self) -> GroupRules:
        """The rules of the groups."""
        return self._policy.rules

    @rules.setter
    def rules(self, rules: GroupRules) -> None:
        self._policy.rules = rules

    @property
    def fits(self) -> Fits:
        """For each slot of this process, the (queue, actor) pairs that it can run."""
        return self._turns.fits

    @fits.setter
    def fits(self, fits: Fits) -> None:
        self._turns.fits = fits

    # -- for workers and relays

    async def end_gaps(self, limit: int) -> int:
        """Let numbered groups continue past old gaps. Each call looks at the numbered groups after the last ones."""
        released, events = await self._sweep.end_gaps(limit, self.now())
        for event in events:
            self._events.emit(event)
        return released

    async def mend_groups(self, before: datetime, limit: int) -> int:
        """Check groups that have not moved since ``before``, and repair those with wrong counts."""
        looked, repaired = await self._repair.repair(before, limit, self.now())
        if repaired:
            self._events.emit(GroupsMended(len(repaired), repaired[0]))
        return looked

    # -- for operators

    async def pause_group(self, group: str, reason: str) -> bool:
        """Stop starting jobs of a group."""
        return await self._steering.pause(group, reason, self.now())

    async def resume_group(self, group: str) -> int | None:
        """Start the jobs of a paused group again."""
        return await self._steering.resume(group, self.now())

    async def cancel_group(self, group: str, reason: str) -> int:
        """Cancel the unfinished jobs of a group that are not running."""
        return await self._steering.cancel(group, reason, self.now())

    async def move(self, job_id: JobId, group: str | None) -> JobState | None:
        """Move a job to the end of another group, or to the front of its own."""
        return await self._moves.move(job_id, group, self.now())

    async def retry(self, where: JobFilter, job_ids: Sequence[JobId], limit: int) -> list[JobId]:
        """Queue failed or cancelled jobs again."""
        return await self._retries.retry(where, job_ids, limit, self.now())

    # -- reading

    async def get(self, job_id: JobId) -> Job | None:
        """Return a job with its newest attempts."""
        return await self._reading.get(job_id, self.now())

    async def find(self, where: JobFilter, limit: int, after: str | None) -> JobPage:
        """Return a page of jobs, newest first."""
        return await self._reading.find(where, limit, after)

    async def end_of(self, job_id: JobId) -> JobEnd | None:
        """Read a job's state and, once it has ended, its result or error."""
        return await self._reading.end_of(job_id)

    async def get_group(self, group: str) -> Group | None:
        """Return what is known about a group."""
        return await self._group_reading.get(group, self.now())

    async def first_of_group(self, group: str, limit: int) -> list[Job]:
        """Return the first jobs of a group that are neither final nor scheduled."""
        return await self._reading.first_of_group(group, limit, self.now())

    async def find_groups(self, states: frozenset[GroupState], limit: int, after: str | None) -> GroupPage:
        """Return a page of groups, by name."""
        return await self._group_reading.find(states, limit, after, self.now())
