"""New jobs of groups: counted, numbered and admitted, in the transaction that inserts them under the groups' locks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.errors import NotStoredError
from jq_actors.model.job import JobId, JobState
from jq_actors.store.database.dialect import Dialect, encode_column, encode_rows
from jq_actors.store.groups.rows import GroupPolicy, LockedGroups
from jq_actors.store.records import NewJob
from jq_actors.store.tables import BIGINT, Tables

from .admission_rules import AdmittingGroup

Wanted = Mapping[str, Sequence[NewJob]]
"""The new jobs of each group."""


@dataclass(slots=True)
class Admission:
    """The decision about the jobs of several insertions."""

    refused: dict[int, NotStoredError] = field(default_factory=dict)
    """Why an insertion is refused, by its index: nothing of it is stored."""
    waiting: set[JobId] = field(default_factory=set)
    """The jobs that get no place now."""
    numbered: set[str] = field(default_factory=set)
    """Groups in which all new jobs wait, until turns are given."""


class GroupIntake:
    """Admits new jobs to their groups: gives them the places that are free."""

    def __init__(self, tables: Tables, dialect: Dialect, policy: GroupPolicy) -> None:
        self._policy = policy
        c, name = tables.jobs.c, sa.bindparam("name", type_=sa.Text)
        positions = dialect.rows({"position": BIGINT}).c.position
        self._used = sa.select(c.position).where(c.group_key == name, c.position.in_(sa.select(positions)))
        self._has_plain = sa.select(sa.exists().where(c.group_key == name, c.position.is_(None)))
        self._waiting = _waiting(tables, dialect)

    async def admit(
        self,
        connection: AsyncConnection,
        insertions: Sequence[Sequence[NewJob]],
        groups: LockedGroups,
        *,
        limited: bool = True,
    ) -> Admission:
        """Decide about ``insertions``, each all or none, in their order; count them in ``groups``, which are locked.

        ``limited``: `GroupRule.max_size` applies; otherwise groups take any number of jobs.
        """
        admission = Admission()
        wanted = by_group(job for jobs in insertions for job in jobs)
        if not wanted:
            return admission
        admitting = await self._admitting(connection, wanted, groups, limited=limited)
        for index, jobs in enumerate(insertions):
            ids = [job.id for job in jobs]
            refusals = (admitting[name].refusal(part, ids) for name, part in by_group(jobs).items())
            refusal = next((refusal for refusal in refusals if refusal is not None), None)
            if refusal is not None:
                admission.refused[index] = refusal
                continue
            in_groups = [(job, admitting[job.group]) for job in jobs if job.group is not None]
            admission.waiting |= {job.id for job, group in in_groups if not group.take(job)}
        for name, group in admitting.items():
            if group.row != groups[name]:
                groups.put(group.row)
            if group.row.next_position is not None:
                admission.numbered.add(name)
        return admission

    async def _admitting(
        self, connection: AsyncConnection, wanted: Wanted, groups: LockedGroups, *, limited: bool
    ) -> dict[str, AdmittingGroup]:
        rules = {name: self._policy.rules.rule_of(name) for name in wanted}
        admitting = {name: AdmittingGroup(groups[name], rules[name].concurrency) for name in wanted}
        for name, jobs in wanted.items():
            if any(job.position is not None for job in jobs):
                await self._look_at_numbers(connection, admitting[name], jobs)
        if limited:
            limits = {name: rule.max_size for name, rule in rules.items() if rule.max_size is not None}
            counts = await self._count(connection, limits)
            for name, limit in limits.items():
                admitting[name] = replace(admitting[name], max_size=limit, not_running=counts.get(name, 0))
        return admitting

    async def _look_at_numbers(
        self, connection: AsyncConnection, group: AdmittingGroup, jobs: Sequence[NewJob]
    ) -> None:
        name = group.row.name
        if group.row.next_position is None:
            group.has_plain = bool(await connection.scalar(self._has_plain, {"name": name}))
        asked = [{"position": job.position} for job in jobs if job.position is not None]
        parameters = {"name": name, "batch": encode_rows(asked)}
        group.used.update((await connection.execute(self._used, parameters)).scalars())

    async def _count(self, connection: AsyncConnection, limits: Mapping[str, int]) -> dict[str, int]:
        """How many jobs of each group neither run nor are scheduled, counted up to its limit."""
        alike: defaultdict[int, list[str]] = defaultdict(list)
        for name, limit in limits.items():
            alike[limit].append(name)
        counts: dict[str, int] = {}
        for limit, names in alike.items():
            batch = encode_column("name", names)
            rows = await connection.execute(self._waiting, {"batch": batch, "limit": limit})
            counts |= {row.name: row.count for row in rows}
        return counts


def by_group(jobs: Iterable[NewJob]) -> dict[str, list[NewJob]]:
    """The jobs that are in groups."""
    groups: defaultdict[str, list[NewJob]] = defaultdict(list)
    for job in jobs:
        if job.group is not None:
            groups[job.group].append(job)
    return groups


def _waiting(tables: Tables, dialect: Dialect) -> sa.Select[Any]:
    c, names = tables.jobs.c, dialect.rows({"name": sa.Text()})
    idle = (JobState.RUNNING.value, JobState.SCHEDULED.value)
    some = (
        sa.select(c.seq)
        .where(c.group_key == names.c.name, c.final_state.is_(None), c.state.not_in(idle))
        .limit(sa.bindparam("limit", type_=sa.Integer))
        .correlate(names)
        .subquery()
    )
    count = sa.select(sa.func.count()).select_from(some).scalar_subquery()
    return sa.select(names.c.name, count.label("count"))
