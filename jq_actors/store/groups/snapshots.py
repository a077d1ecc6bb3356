"""What `turn_rules.assign_places` looks at: of each group the jobs that hold places and the first ones that wait.

Reading takes a time that does not grow with the size of the groups: jobs that hold places stand at the front,
and the next ones right behind them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.model.group_rules import GroupRule
from jq_actors.model.job import JobState
from jq_actors.model.turn_rules import GroupView, Member
from jq_actors.store.database.dialect import Dialect, encode_rows
from jq_actors.store.tables import NO_PLACE, Tables, group_order

from .rows import GroupPolicy, GroupRow

WALK = 200
"""How many numbers of a group are read at once, to find those whose jobs ended before their turn."""

Row = sa.Row[Any]


class GroupSnapshots:
    """Reads snapshots. Under the groups' locks they stay true, except for jobs that are claimed meanwhile."""

    def __init__(self, tables: Tables, dialect: Dialect, policy: GroupPolicy) -> None:
        self._policy = policy
        self._holders = _members(tables, dialect, held=True)
        self._others = _members(tables, dialect, held=False)
        c = tables.jobs.c
        self._numbers = (
            sa.select(c.position, c.final_state)
            .where(
                c.group_key == sa.bindparam("name", type_=sa.Text),
                c.position >= sa.bindparam("from_", type_=sa.BigInteger),
            )
            .order_by(c.position)
            .limit(WALK)
        )

    async def read(self, connection: AsyncConnection, rows: Mapping[str, GroupRow]) -> dict[str, GroupView]:
        """The snapshots of the groups in ``rows``."""
        if not rows:
            return {}
        rules = {name: self._policy.rules.rule_of(name) for name in rows}
        found = await self._found(connection, rows, rules)
        return {
            name: _view(row, rules[name], found[name], await self._ended(connection, row)) for name, row in rows.items()
        }

    async def _found(
        self, connection: AsyncConnection, rows: Mapping[str, GroupRow], rules: Mapping[str, GroupRule]
    ) -> Mapping[str, list[Row]]:
        batch = encode_rows([{"name": name, "overtake": rules[name].overtake} for name in rows])
        found: defaultdict[str, list[Row]] = defaultdict(list)
        for statement, limit in (
            (self._holders, max(row.held for row in rows.values())),
            (self._others, max(rule.concurrency for rule in rules.values())),
        ):
            if limit > 0:
                for row in await connection.execute(statement, {"batch": batch, "count": limit}):
                    found[row.group_key].append(row)
        return found

    async def _ended(self, connection: AsyncConnection, row: GroupRow) -> frozenset[int]:
        """The numbers whose jobs have ended, from the group's next one to the first that nobody has sent."""
        ended: set[int] = set()
        number = row.next_position
        while number is not None:
            parameters = {"name": row.name, "from_": number}
            numbers = (await connection.execute(self._numbers, parameters)).all()
            run = [one for offset, one in enumerate(numbers) if one.position == number + offset]
            ended |= {one.position for one in run if one.final_state is not None}
            # Behind a job that has not ended, numbers that have do not matter yet.
            is_over = len(run) < WALK or any(one.final_state is None for one in run)
            number = None if is_over else number + WALK
        return frozenset(ended)


def _view(row: GroupRow, rule: GroupRule, found: list[Row], ended: frozenset[int]) -> GroupView:
    return GroupView(
        members=tuple(_member(one) for one in sorted(found, key=lambda one: one.place)),
        concurrency=rule.concurrency,
        overtake=rule.overtake,
        paused=row.paused,
        next_position=row.next_position,
        ended=ended,
    )


def _member(row: Row) -> Member:
    return Member(row.id, JobState(row.state), row.queue, row.due_at, bool(row.has_place), row.position)


def _members(tables: Tables, dialect: Dialect, *, held: bool) -> sa.Select[Any]:
    """Of each group of the batch the first ``count`` unfinished jobs that hold a place, or that may get one."""
    groups = dialect.rows({"name": sa.Text(), "overtake": sa.Boolean()})
    jobs = tables.jobs
    job = jobs.alias("member")
    order = group_order(job)
    first = (
        sa.select(job.c.seq)
        .where(job.c.group_key == groups.c.name, job.c.final_state.is_(None), order < NO_PLACE)
        .where(*_which(job, groups, held=held))
        .order_by(order)
        .limit(sa.bindparam("count", type_=sa.Integer))
    )
    columns = [jobs.c.group_key, jobs.c.id, jobs.c.state, jobs.c.queue, jobs.c.due_at, jobs.c.has_place]
    return sa.select(*columns, jobs.c.position, group_order(jobs).label("place")).select_from(
        dialect.each_with(groups, first, jobs, jobs.c.seq)
    )


def _which(job: sa.FromClause, groups: sa.FromClause, *, held: bool) -> list[sa.ColumnElement[bool]]:
    if held:
        return [job.c.has_place]
    passed = sa.and_(groups.c.overtake, job.c.state == JobState.RETRYING.value)
    # A scheduled one is met where numbers say that others wait for it.
    scheduled = sa.and_(job.c.state == JobState.SCHEDULED.value, job.c.position.is_(None))
    return [~job.c.has_place, ~passed, ~scheduled]
