"""Turns in groups: a transaction that has changed a group ends by giving its places to the jobs whose turn it is.

`turn_rules.assign_places` decides; this module reads what it needs and writes what it says, for all groups of a
transaction together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.model.job import JobId, JobState
from jq_actors.model.turn_rules import BEHIND, Member, Places, assign_places
from jq_actors.store.database.dialect import Dialect, encode_column, encode_rows
from jq_actors.store.records import Chain, Dispatch, NextJob
from jq_actors.store.rows.dispatches import Bodies, dispatch_columns, dispatches_of, queued_anew
from jq_actors.store.rows.grants import grant
from jq_actors.store.rows.workers import Workers
from jq_actors.store.tables import BIGINT, JOB_ID, Tables, UtcDateTime

from .rows import GroupRows, LockedGroups
from .snapshots import GroupSnapshots

NOW = sa.bindparam("now", type_=UtcDateTime)
_PUBLISH_AT = sa.bindparam("publish_from", type_=UtcDateTime)

Fits = Mapping[str, frozenset[tuple[str, str]]]
"""The jobs that each slot of this process can run: pairs of queue and actor."""


@dataclass(slots=True)
class TurnsGiven:
    """The jobs that were released."""

    dispatches: list[Dispatch] = field(default_factory=list)
    """Jobs that are queued now: leased to the caller if it asked for that, else unpublished."""
    chained: dict[int, NextJob] = field(default_factory=dict)
    """Jobs that run here now, by the token of the settlement that they follow."""

    @property
    def count(self) -> int:
        """How many jobs no longer wait."""
        return len(self.dispatches) + len(self.chained)


@dataclass(frozen=True, slots=True)
class Successor:
    """A run that has ended, and what may follow it in its place."""

    run_token: int
    chain: Chain


class GroupTurns:
    """Assigns places and withdraws them. Called last in a transaction that has locked and changed groups."""

    def __init__(
        self,
        tables: Tables,
        dialect: Dialect,
        rows: GroupRows,
        snapshots: GroupSnapshots,
        bodies: Bodies,
        workers: Workers,
    ) -> None:
        self._rows, self._snapshots, self._bodies, self._workers = rows, snapshots, bodies, workers
        self.fits: Fits = {}
        jobs = tables.jobs
        b = dialect.rows({"id": JOB_ID, "has_place": sa.Boolean()})
        this = sa.update(jobs).where(jobs.c.id == b.c.id)
        released = queued_anew(jobs) | {"publish_at": _PUBLISH_AT, "has_place": True}
        self._release = (
            this.where(jobs.c.state == JobState.WAITING.value).values(released).returning(*dispatch_columns(jobs))
        )
        self._withdraw = (
            this.where(jobs.c.state == JobState.QUEUED.value).values(waiting(BEHIND)).returning(jobs.c.group_key)
        )
        self._set_place = this.values(has_place=b.c.has_place)
        self._actors = sa.select(jobs.c.id, jobs.c.actor).join(b, b.c.id == jobs.c.id)
        self._chain = _chain(tables, dialect)

    async def give(
        self,
        connection: AsyncConnection,
        groups: LockedGroups,
        now: datetime,
        *,
        names: Iterable[str] | None = None,
        publish_from: datetime | None = None,
        successors: Mapping[str, Sequence[Successor]] | None = None,
    ) -> TurnsGiven:
        """Assign the places of ``groups`` (or of those with ``names``) to the jobs whose turn it is.

        Then all rows of groups that have changed are written.

        Parameters:
          publish_from: the caller publishes the released jobs, and has a lease on them until then; else any relay does.
          successors: for each group, the runs that have just ended here, and may be followed here by released jobs.
        """
        given = TurnsGiven()
        places = await self._places(connection, groups, set(groups.rows if names is None else names), now)
        await self._set_places(connection, places, groups)
        chained = await self._go_on(connection, places, successors or {}, now, given)
        rest = [one for of in places.values() for one in of.released if one.job_id not in chained]
        released = chained | await self._publish(connection, rest, publish_from or now, now, given)
        for name, of_group in places.items():
            count = sum(one.job_id in released for one in of_group.released)
            if count:
                groups.add(name, held=count, waiting=-count)
        await self._rows.write(connection, groups, now)
        return given

    async def _places(
        self, connection: AsyncConnection, groups: LockedGroups, names: set[str], now: datetime
    ) -> dict[str, Places]:
        """The changes to make, after the jobs that lose their places were withdrawn.

        A claim locks no groups. If it was quicker than a withdrawal, its job runs and keeps its place, and the places
        have to be assigned anew.
        """
        settled: dict[str, Places] = {}
        while names:
            views = await self._snapshots.read(connection, {name: groups[name] for name in names})
            places = {name: assign_places(view) for name, view in views.items()}
            gone = await self._withdrawn(connection, places, now)
            for name, of_group in places.items():
                groups.add(name, held=-gone[name], waiting=gone[name]) if gone[name] else None
                if gone[name] == len(of_group.withdrawn):
                    settled[name] = of_group
            names = names - settled.keys()
        return settled

    async def _withdrawn(
        self, connection: AsyncConnection, places: Mapping[str, Places], now: datetime
    ) -> Counter[str]:
        """How many jobs of each group wait again."""
        ids = [{"id": one.job_id} for of in places.values() for one in of.withdrawn]
        if not ids:
            return Counter()
        parameters = {"batch": encode_rows(ids), "now": now}
        return Counter((await connection.execute(self._withdraw, parameters)).scalars())

    async def _set_places(
        self, connection: AsyncConnection, places: Mapping[str, Places], groups: LockedGroups
    ) -> None:
        stuck = [{"id": one.job_id, "has_place": True} for of in places.values() for one in of.kept_back]
        stuck += [{"id": one.job_id, "has_place": False} for of in places.values() for one in of.passed]
        if stuck:
            await connection.execute(self._set_place, {"batch": encode_rows(stuck)})
        for name, of_group in places.items():
            if of_group.kept_back or of_group.passed:
                groups.add(name, held=len(of_group.kept_back) - len(of_group.passed))
            if of_group.next_position != groups[name].next_position:
                groups.put(replace(groups[name], next_position=of_group.next_position))

    async def _go_on(
        self,
        connection: AsyncConnection,
        places: Mapping[str, Places],
        successors: Mapping[str, Sequence[Successor]],
        now: datetime,
        given: TurnsGiven,
    ) -> set[JobId]:
        """Let released jobs that fit into the slots of ``successors`` run here; returns them."""
        pairs = await self._pairs(
            connection,
            [pair for name, some in successors.items() for pair in zip(places[name].released, some, strict=False)],
        )
        if not pairs:
            return set()
        rows = [{"id": job_id, "run_token": token} for token, (job_id, _) in pairs.items()]
        parameters = {"batch": encode_rows(rows), "me": self._workers.my_id, "now": now}
        found = (await connection.execute(self._chain, parameters)).all()
        bodies = await self._bodies.of(connection, [row.id for row in found])
        for row in found:
            if row.id in bodies:
                given.chained[pairs[row.run_token][1]] = next_job(row, bodies[row.id])
        return {JobId(row.id) for row in found}

    async def _pairs(
        self, connection: AsyncConnection, pairs: Sequence[tuple[Member, Successor]]
    ) -> dict[int, tuple[JobId, int]]:
        """Those that fit: a job by the token that it would run under, with the token of the run that it follows."""
        if not pairs:
            return {}
        batch = {"batch": encode_rows([{"id": member.job_id} for member, _ in pairs])}
        actors = {row.id: row.actor for row in await connection.execute(self._actors, batch)}
        return {
            one.chain.run_token: (member.job_id, one.run_token)
            for member, one in pairs
            if (member.queue, actors.get(member.job_id)) in self.fits.get(one.chain.slot, ())
        }

    async def _publish(
        self, connection: AsyncConnection, members: Sequence[Member], at: datetime, now: datetime, given: TurnsGiven
    ) -> set[JobId]:
        if not members:
            return set()
        batch = encode_column("id", [member.job_id for member in members])
        rows = (await connection.execute(self._release, {"batch": batch, "now": now, "publish_from": at})).all()
        bodies = await self._bodies.of(connection, [row.id for row in rows])
        order = {member.job_id: number for number, member in enumerate(members)}
        given.dispatches += dispatches_of(sorted(rows, key=lambda row: order[row.id]), bodies)
        return {JobId(row.id) for row in rows}


def waiting(reason: str | sa.ColumnElement[str]) -> dict[str, Any]:
    """The values of a row that waits for its turn since ``now``, without a place; published copies become stale."""
    return {
        "state": JobState.WAITING.value,
        "has_place": False,
        "parked_at": NOW,
        "reason": reason,
        "published_at": None,
        "publish_at": None,
        "wake_at": None,
        "lane_owner": None,
    }


def next_job(row: sa.Row[Any], body: bytes) -> NextJob:
    """The job in ``row``, of a grant's columns, as one that runs now."""
    return NextJob(JobId(row.id), row.dispatch, row.run_token, row.attempt, row.crashes, row.queue, row.group_key, body)


def _chain(tables: Tables, dialect: Dialect) -> sa.UpdateBase:
    c = tables.jobs.c
    b = dialect.rows({"id": JOB_ID, "run_token": BIGINT}).c
    this = (c.id == b.id, c.state == JobState.WAITING.value)
    return grant(tables, b.run_token, *this, dispatch=c.dispatch + 1, has_place=True, parked_at=None)
