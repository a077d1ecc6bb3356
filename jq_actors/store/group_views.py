"""What `turns.turn_of` looks at: the first unfinished jobs of groups, and how many run. Read, for any number of groups,
in a time that does not grow with them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.groups import GroupRule
from jq_actors.job import JobId, JobState
from jq_actors.turns import GroupView, Member

from .dialect import Dialect, encode_rows
from .group_rows import GroupPolicy, GroupRow, group_columns, group_row
from .tables import JOB_ID, NO_PLACE, Tables, group_order

WALK = 200
"""Numbers of a group that are read at once, to find the first that nobody has sent."""


@dataclass(frozen=True, slots=True)
class SeenJob:
    """A job of a group, as it is now."""

    id: JobId
    group: str | None
    state: JobState
    queue: str
    dispatch: int
    due_at: datetime
    position: int | None


@dataclass(slots=True)
class Sight:
    """A group as it is now, and as what is being done makes it."""

    row: GroupRow
    rule: GroupRule
    members: list[Member] = field(default_factory=list)
    running: set[JobId] = field(default_factory=set)
    next_position: int | None = None
    """In a numbered group: the first number that nobody has sent."""

    def view(self) -> GroupView:
        """What `turns.turn_of` asks for."""
        return GroupView(tuple(self.members), len(self.running), self.rule.concurrency, self.row.paused)

    def start(self, member: Member) -> None:
        """``member`` runs from now on."""
        running = replace(member, state=JobState.RUNNING)
        self.members = [running if other.job_id == member.job_id else other for other in self.members]
        self.running.add(member.job_id)


@dataclass(slots=True)
class Views:
    """Groups, and the jobs that were met on the way."""

    sights: dict[str, Sight]
    jobs: dict[JobId, SeenJob]


class GroupViews:
    """Reads them. Under the groups' locks they stay true but for runs that end, and rows that are cancelled."""

    def __init__(self, tables: Tables, dialect: Dialect, policy: GroupPolicy) -> None:
        self._policy = policy
        self._first = {overtake: first_jobs(tables, dialect, overtake=overtake) for overtake in (False, True)}
        self._looks = {overtake: _look(tables, dialect, overtake=overtake) for overtake in (False, True)}
        c, ids = tables.jobs.c, dialect.rows({"id": JOB_ID})
        self._by_id = sa.select(*_columns(tables.jobs)).select_from(ids).join(tables.jobs, c.id == ids.c.id)
        self._numbers = (
            sa.select(c.position)
            .where(
                c.group_key == sa.bindparam("name", type_=sa.Text),
                c.position >= sa.bindparam("from_", type_=sa.BigInteger),
            )
            .order_by(c.position)
            .limit(WALK)
        )

    async def read(
        self, connection: AsyncConnection, rows: Mapping[str, GroupRow], job_ids: Iterable[JobId] = ()
    ) -> Views:
        """The groups of ``rows``, and the jobs of ``job_ids``, whatever their groups."""
        views = Views({name: Sight(row, self._policy.rules.rule_of(name)) for name, row in rows.items()}, {})
        firsts = await self._members(connection, views)
        await self._others(connection, views, job_ids)
        for name, sight in views.sights.items():
            unsent = await self._first_unsent(connection, sight, firsts[name])
            sight.members = [_member(job, unsent) for job in firsts[name]]
            sight.running = {job.id for job in firsts[name] if job.state is JobState.RUNNING}
            holders = [views.jobs[job_id] for job_id in sight.row.holders if job_id in views.jobs]
            # A holder that runs in another group was moved there since.
            sight.running |= {job.id for job in holders if job.state is JobState.RUNNING and job.group == name}
        return views

    async def look(self, connection: AsyncConnection, names: Iterable[str]) -> Views:
        """The groups of these names that have a row and are not numbered: all of each in one moment.

        So no lock is needed for what is read to fit together. Only on databases that `Dialect.nests_writes` is true of.
        """
        alike: defaultdict[tuple[int, bool], list[str]] = defaultdict(list)
        for name in names:
            rule = self._policy.rules.rule_of(name)
            alike[rule.concurrency, rule.overtake].append(name)
        views = Views({}, {})
        for (count, overtake), some in alike.items():
            batch = encode_rows([{"name": name} for name in some])
            rows = (await connection.execute(self._looks[overtake], {"batch": batch, "count": count})).all()
            self._note(views, sorted(rows, key=lambda row: row.place or 0) if count > 1 else rows)
        return views

    def _note(self, views: Views, rows: Iterable[sa.Row[Any]]) -> None:
        for row in rows:
            sight = views.sights.get(row.name)
            if sight is None:
                sight = views.sights[row.name] = Sight(group_row(row, ()), self._policy.rules.rule_of(row.name))
            if row.id is None:
                continue
            job = views.jobs[row.id] = _seen(row)  # of the same moment as the version
            if row.place is not None:
                sight.members.append(_member(job, None))
            # A holder that runs in another group was moved there since.
            if job.state is JobState.RUNNING and job.group == row.name:
                sight.running.add(job.id)

    async def _members(self, connection: AsyncConnection, views: Views) -> Mapping[str, list[SeenJob]]:
        alike: defaultdict[tuple[int, bool], list[str]] = defaultdict(list)
        for name, sight in views.sights.items():
            alike[sight.rule.concurrency, sight.rule.overtake].append(name)
        firsts: defaultdict[str, list[SeenJob]] = defaultdict(list)
        for (count, overtake), names in alike.items():
            parameters = {"batch": encode_rows([{"name": name} for name in names]), "count": count}
            for row in await connection.execute(self._first[overtake], parameters):
                job = _seen(row)
                views.jobs[job.id] = job
                firsts[row.group_key].append(job)
        return firsts

    async def _others(self, connection: AsyncConnection, views: Views, job_ids: Iterable[JobId]) -> None:
        holders = {job_id for sight in views.sights.values() for job_id in sight.row.holders}
        wanted = (holders | set(job_ids)) - views.jobs.keys()
        if wanted:
            batch = encode_rows([{"id": job_id} for job_id in wanted])
            for row in await connection.execute(self._by_id, {"batch": batch}):
                views.jobs[row.id] = _seen(row)

    async def _first_unsent(self, connection: AsyncConnection, sight: Sight, first: Sequence[SeenJob]) -> int | None:
        """The first number, not after those of ``first``, that nobody has sent; ``None``: there is none.

        Notes how far the group has come.
        """
        start = sight.row.next_position
        if start is None:
            return None
        positions = [job.position for job in first if job.position is not None]
        last = positions[-1] if positions else start
        unsent, more = start, True
        while more and unsent <= last:
            parameters = {"name": sight.row.name, "from_": unsent}
            numbers = (await connection.execute(self._numbers, parameters)).scalars().all()
            run = next((n for n, number in enumerate(numbers) if number != unsent + n), len(numbers))
            unsent, more = unsent + run, run == WALK
        # Not that of an earlier one that was retried: what came between may be pruned, and would be missing.
        sight.next_position = unsent
        return unsent


def _look(tables: Tables, dialect: Dialect, *, overtake: bool) -> sa.Select[Any]:
    """Each group of the batch: its first ``count`` jobs, which have a place, and those that it names as running."""
    g, asked = tables.groups.c, dialect.rows({"name": sa.Text()})
    first, held = tables.jobs.alias("first_job"), tables.jobs.alias("held_job")
    order = group_order(first)
    ids = sa.func.jsonb_array_elements_text(g.holders).table_valued("value", name="holder")
    found = sa.union_all(
        sa.select(
            sa.select(*_columns(first), order.label("place"))
            .where(*_may_come(first, asked.c.name, overtake=overtake))
            .order_by(order)
            .limit(sa.bindparam("count", type_=sa.Integer))
            .correlate(asked)
            .subquery("first")
        ),
        sa.select(*_columns(held), sa.null())
        .where(held.c.id == sa.cast(ids.c.value, JOB_ID), held.c.state == JobState.RUNNING.value)
        .correlate(tables.groups),
    ).lateral("found")
    # Not the holders: what they say is found.
    of_group = [column for column in group_columns(tables.groups, dialect) if column is not g.holders]
    return sa.select(*of_group, *found.c).select_from(
        asked.join(tables.groups, (g.name == asked.c.name) & g.next_position.is_(None)).outerjoin(found, sa.true())
    )


def _may_come(job: sa.FromClause, name: sa.ColumnElement[str], *, overtake: bool) -> list[sa.ColumnElement[bool]]:
    may_come = [job.c.group_key == name, job.c.final_state.is_(None), group_order(job) < NO_PLACE]
    return [*may_come, job.c.state != JobState.RETRYING.value] if overtake else may_come


def first_jobs(tables: Tables, dialect: Dialect, *, overtake: bool) -> sa.Select[Any]:
    """The first ``count`` jobs of each group of the batch (``name``) that may come, in order."""
    jobs, groups = tables.jobs, dialect.rows({"name": sa.Text()})
    job = jobs.alias("first_job")
    order = group_order(job)
    may_come = _may_come(job, groups.c.name, overtake=overtake)
    first = sa.select(job.c.seq).where(*may_come).order_by(order).limit(sa.bindparam("count", type_=sa.Integer))
    found = dialect.each_with(groups, first, jobs, jobs.c.seq)
    return sa.select(*_columns(jobs)).select_from(found).order_by(jobs.c.group_key, group_order(jobs))


def _columns(jobs: sa.FromClause) -> list[sa.ColumnElement[Any]]:
    c = jobs.c
    return [c.id, c.group_key, c.state, c.queue, c.dispatch, c.due_at, c.position]


def _seen(row: sa.Row[Any]) -> SeenJob:
    return SeenJob(row.id, row.group_key, JobState(row.state), row.queue, row.dispatch, row.due_at, row.position)


def _member(job: SeenJob, unsent: int | None) -> Member:
    gap = unsent if unsent is not None and job.position is not None and unsent < job.position else None
    return Member(job.id, job.state, job.queue, job.dispatch, job.due_at, gap)
