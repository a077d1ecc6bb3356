"""New jobs of groups, in one statement that is a transaction of its own: admitted and inserted under the groups' locks.

The statement repeats `admission_rules.may_enter` in SQL, for groups without numbers and limits, as nearly all are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from jq_actors.errors import StoreError, StoreUnavailableError, StoreUnknownError
from jq_actors.model.job import JobState
from jq_actors.model.turn_rules import BEHIND
from jq_actors.store.database.database import Database
from jq_actors.store.groups.rows import GroupPolicy, move_at, moved
from jq_actors.store.records import NewJob
from jq_actors.store.tables import Tables, UtcDateTime

from .admission_rules import is_scheduled
from .inserts import Inserted, Insertion, dispatches_of
from .ungrouped_inserts import COLUMNS, arrays, chunks, constant, payloads_of, row_values, time_of, unnested

_NOW = sa.bindparam("now", type_=UtcDateTime)


class GroupedInserts:
    """Commits insertions whose jobs are all in groups."""

    def __init__(self, database: Database, tables: Tables, policy: GroupPolicy) -> None:
        self._database, self._policy = database, policy
        self._statement = _insert(tables) if database.dialect.has_writable_ctes else None

    async def try_write(self, insertions: Sequence[Insertion], now: datetime) -> list[Inserted] | None:
        """Insert the jobs of ``insertions``, in their order; returns what became of each.

        ``None``: nothing was written, because one of them needs more than this statement can do.

        Raises:
          StoreUnavailableError, StoreUnknownError: as `Database.write`.
        """
        if self._statement is None or not all(self._is_simple(job) for jobs, _ in insertions for job in jobs):
            return None
        first, *others = chunks(insertions)
        if others:
            return None
        parameters = {**arrays(first, now), **self._of_groups(first), **move_at(now)}
        try:
            rows = await self._database.autocommit("insert", self._statement, parameters)
        except StoreUnavailableError:
            raise
        except StoreError:
            return None  # which one is at fault is found one by one
        if rows is None:
            raise StoreUnknownError("The answer to a commit was lost.")
        admitted = {row.name: row.admitted for row in rows}
        ranked = zip(first, parameters["group"], parameters["rank"], strict=True)
        waiting = {job.id for (job, _), group, rank in ranked if rank > admitted[group]}
        return [dispatches_of(insertion, waiting) for insertion in insertions]

    def _is_simple(self, job: NewJob) -> bool:
        if job.group is None or job.position is not None or is_scheduled(job):
            return False
        return self._policy.rules.rule_of(job.group).max_size is None

    def _of_groups(self, chunk: Sequence[tuple[NewJob, Any]]) -> dict[str, Any]:
        """More parameters: the group of each job, its number among the new jobs of that group, and the groups."""
        count = Counter[str]()
        groups, ranks = list[str](), list[int]()
        for job, _ in chunk:
            assert job.group is not None
            count[job.group] += 1
            groups.append(job.group)
            ranks.append(count[job.group])
        # In the order in which every transaction locks them.
        names = sorted(count)
        places = [self._policy.rules.rule_of(name).concurrency for name in names]
        return {
            "group": groups,
            "rank": ranks,
            "name": names,
            "places": places,
            "count": [count[name] for name in names],
        }


def _insert(tables: Tables) -> sa.Select[Any]:
    """No ON CONFLICT for jobs: a job that exists refuses them all, and so does a group that needs more than this."""
    given = unnested({**COLUMNS, "group": sa.Text(), "rank": sa.Integer()}, "sent")
    wanted = unnested({"name": sa.Text(), "places": sa.Integer(), "count": sa.Integer()}, "wanted")
    taken = _admit(tables, wanted)
    g, c = given.c, tables.jobs.c
    is_in = g.rank <= taken.c.admitted
    # A statement can refuse itself only by an error: it divides by zero.
    is_simple = sa.case((taken.c.next_position.is_(None), constant(1)), else_=constant(0))
    values = row_values(tables, given) | {
        c.dispatch: constant(1).op("/")(is_simple),
        c.group_key: g.group,
        c.state: sa.case((is_in, constant(JobState.QUEUED)), else_=constant(JobState.WAITING)),
        c.has_place: is_in,
        c.publish_at: sa.case((is_in, time_of(g.publish))),
        c.parked_at: sa.case((~is_in, _NOW)),
        c.reason: sa.case((~is_in, sa.literal_column(f"'{BEHIND}'"))),
    }
    # `seq` is given under the lock of the group, and in the order of the rows: that is the order of its jobs.
    rows = sa.select(*values.values()).join_from(given, taken, taken.c.name == g.group).order_by(g.n)
    made = sa.insert(tables.jobs).from_select([column.name for column in values], rows).cte("made")
    bodies = payloads_of(tables, given).cte("bodies")
    return sa.select(taken.c.name, taken.c.admitted).add_cte(made, bodies)


def _admit(tables: Tables, wanted: sa.CTE) -> sa.CTE:
    """Count the new jobs under the groups' locks; returns how many of each group get a place."""
    w, row, none = wanted.c, tables.groups.c, constant(0)
    # A group without a row must have no jobs. Otherwise its row was lost, and its jobs have to be counted anew.
    has_row = sa.exists().where(row.name == w.name)
    has_jobs = sa.exists().where(tables.jobs.c.group_key == w.name, tables.jobs.c.final_state.is_(None))
    is_simple = sa.case((sa.and_(~has_row, has_jobs), constant(0)), else_=constant(1))
    fit = sa.func.least(w.count, w.places)
    new = {
        row.name: w.name,
        row.moved_at: _NOW,
        row.held: fit,
        row.waiting: w.count - fit,
        row.admitted: fit.op("/")(is_simple),
        # Any number will do for a new row; an existing row learns by it how many places there are.
        row.version: w.places,
    }
    insert = postgresql.insert(tables.groups).from_select(
        [column.name for column in new], sa.select(*new.values()).order_by(w.n)
    )
    arriving = insert.excluded.held + insert.excluded.waiting
    free = sa.func.greatest(insert.excluded.version - row.held, none)
    may_enter = sa.and_(row.paused_at.is_(None), row.waiting == none)
    admitted = sa.case((may_enter, sa.func.least(arriving, free)), else_=none)
    return (
        insert.on_conflict_do_update(
            index_elements=[row.name],
            set_={
                "held": row.held + admitted,
                "waiting": row.waiting + arriving - admitted,
                "admitted": admitted,
                **moved(tables.groups),
            },
        )
        .returning(row.name, row.admitted, row.next_position)
        .cte("taken")
    )
