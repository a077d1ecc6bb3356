"""The PostgreSQL statement that settles runs in groups and gives their turns to the next jobs, part by part.

The statement sees jobs as they were when it began, before it acquired its locks. It therefore works only in groups
whose locked row still has the version that the statement saw, because then nothing in the group has changed since. It
also leaves out numbered groups, and groups in which one of the next jobs is in any state but waiting. In a group that
it leaves out, it settles nothing.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from jq_actors.model.job import JobState
from jq_actors.store.database.dialect import ColumnTypes, Dialect
from jq_actors.store.groups.rows import moved
from jq_actors.store.records import Settlement
from jq_actors.store.rows.grants import running
from jq_actors.store.rows.workers import held_worker
from jq_actors.store.tables import BIGINT, NO_PLACE, Tables, UtcDateTime, group_order

from .settle_rows import COLUMNS, KEPT, Row, keeping, recording, settling

CHAIN: ColumnTypes = {"chain_token": BIGINT, "slot": sa.Text()}

_LEASE = sa.bindparam("lease", type_=UtcDateTime)


def chain_columns(settlement: Settlement) -> Row:
    """The extra columns for this statement's batch if the settlement asks for the group's next job to run here."""
    chain = settlement.chain
    return {} if chain is None else {"chain_token": chain.run_token, "slot": chain.slot}


def chained_settlements(tables: Tables, dialect: Dialect) -> sa.Select[Any] | sa.CompoundSelect[Any]:
    """Build the statement.

    It returns rows of two kinds. A settled run has only ``settled``, its run token. A released job has all the other
    columns, and if it follows a run in this process, ``settled`` is the token of that run.
    """
    given = _given(dialect)
    me = held_worker(tables).cte("me")
    locked = _locked(tables, dialect, me)
    heads = _heads(tables, locked)
    open_ = _open(tables, given, locked, heads)
    settled = _settled(tables, given, open_)
    freed = _freed(given, settled)
    picked = _picked(tables, dialect, locked, heads, freed, given, settled, me)
    released = _released(tables, picked, me)
    counted = _counted(tables, freed, released)
    r, p = released.c, tables.payloads.c
    follows = sa.case((r.state == JobState.RUNNING.value, picked.c.follows))
    given_on = sa.select(follows.label("settled"), *r, p.body).select_from(
        released.join(picked, picked.c.id == r.id).outerjoin(tables.payloads, p.job_id == r.id)
    )
    nothing = [sa.cast(sa.null(), column.type).label(column.name) for column in (*r, p.body)]
    both = sa.union_all(sa.select(settled.c.run_token.label("settled"), *nothing), given_on)
    same = settled.c.run_token == given.c.run_token
    recorded = recording(tables, dialect, given, settled, same).cte("recorded")
    kept = keeping(tables, given, p.job_id == settled.c.id, same).cte("kept")
    return both.add_cte(recorded, kept, counted)


def _given(dialect: Dialect) -> sa.CTE:
    return sa.select(*dialect.rows({**COLUMNS, **CHAIN, **KEPT}).c).cte("given")


def _locked(tables: Tables, dialect: Dialect, me: sa.CTE) -> sa.CTE:
    """The groups, locked in order of name, each with the version that the statement saw before it had the lock."""
    groups, before = tables.groups, tables.groups.alias("before")
    asked = dialect.rows(
        {"name": sa.Text(), "places": sa.Integer(), "overtake": sa.Boolean()}, sa.bindparam("groups", type_=sa.Text)
    )
    g = groups.c
    # Lock the worker's row first. Recovery, which gives back the jobs of a lost worker, also locks it first.
    worker_first = sa.select(sa.func.count()).select_from(me).scalar_subquery() >= 0
    return (
        sa.select(
            g.name,
            g.held,
            g.paused_at,
            g.next_position,
            g.version,
            asked.c.places,
            asked.c.overtake,
            before.c.version.label("seen"),
        )
        .select_from(groups.join(asked, asked.c.name == g.name).join(before, before.c.name == g.name))
        .where(worker_first)
        .order_by(g.name)
        .with_for_update(of=groups, key_share=True)
        .cte("locked")
    )


def _heads(tables: Tables, locked: sa.CTE) -> sa.CTE:
    """The first jobs of each group that do not hold a place, in order."""
    job = tables.jobs.alias("head")
    order = group_order(job)
    passed = sa.and_(locked.c.overtake, job.c.state == JobState.RETRYING.value)
    first = (
        sa.select(
            job.c.id,
            job.c.state,
            job.c.queue,
            job.c.actor,
            order.label("place"),
            sa.func.row_number().over(order_by=order).label("n"),
        )
        .where(job.c.group_key == locked.c.name, job.c.final_state.is_(None), order < NO_PLACE)
        .where(~job.c.has_place, ~passed)
        .order_by(order)
        .limit(sa.bindparam("most", type_=sa.Integer))
        .correlate(locked)
        .lateral("first")
    )
    return sa.select(locked.c.name, *first.c).select_from(locked.join(first, sa.true())).cte("heads")


def _open(tables: Tables, given: sa.CTE, locked: sa.CTE, heads: sa.CTE) -> sa.CTE:
    """The groups in which the statement works, as an array.

    Because it is one array, PostgreSQL completes it before it touches the first job. So all groups are locked before
    any job is.
    """
    job = tables.jobs.alias("keeping")
    keeping = (
        sa.select(given.c.group_key.label("name"), sa.func.max(group_order(job)).label("place"))
        .where(job.c.id == given.c.id, ~given.c.frees)
        .group_by(given.c.group_key)
        .subquery("keeping")
    )
    # A run must not keep its place if a job that comes before it is waiting.
    comes_first = heads.c.place < keeping.c.place
    stuck = (
        sa.select(heads.c.name)
        .select_from(heads.outerjoin(keeping, keeping.c.name == heads.c.name))
        .where(sa.or_(heads.c.state != JobState.WAITING.value, comes_first))
    )
    names = sa.func.array_agg(locked.c.name, type_=postgresql.ARRAY(sa.Text))
    is_open = _likely(locked.c.seen == locked.c.version, locked.c.next_position.is_(None))
    return sa.select(names.label("names")).where(is_open, locked.c.name.not_in(stuck)).cte("open")


def _settled(tables: Tables, given: sa.CTE, open_: sa.CTE) -> sa.CTE:
    jobs = tables.jobs
    # COALESCE makes this an array expression: ANY of a bare subquery would compare with the rows of the subquery.
    in_open = sa.func.coalesce(sa.select(open_.c.names).scalar_subquery(), sa.cast([], postgresql.ARRAY(sa.Text)))
    is_free_to_end = sa.or_(
        sa.and_(given.c.group_key.is_(None), jobs.c.group_key.is_(None)),
        sa.and_(jobs.c.group_key == given.c.group_key, given.c.group_key == sa.any_(in_open)),
    )
    fence = _likely(jobs.c.run_token == given.c.run_token, jobs.c.state == JobState.RUNNING.value, is_free_to_end)
    settled = settling(tables, given, fence)
    columns = (jobs.c.id, jobs.c.run_token, jobs.c.group_key, jobs.c.attempt, jobs.c.worker_id)
    return settled.returning(*columns).cte("settled")


def _freed(given: sa.CTE, settled: sa.CTE) -> sa.CTE:
    """How many places the settled runs of each group have freed."""
    return (
        sa.select(settled.c.group_key.label("name"), sa.func.count().label("count"))
        .where(settled.c.run_token == given.c.run_token, given.c.frees)
        .group_by(settled.c.group_key)
        .cte("freed")
    )


def _picked(
    tables: Tables,
    dialect: Dialect,
    locked: sa.CTE,
    heads: sa.CTE,
    freed: sa.CTE,
    given: sa.CTE,
    settled: sa.CTE,
    me: sa.CTE,
) -> sa.CTE:
    """The heads that get the free places, each with the run that it may follow in this process, if any."""
    ended = (
        sa.select(
            settled.c.group_key.label("name"),
            settled.c.run_token,
            given.c.chain_token,
            given.c.slot,
            sa.func.row_number().over(partition_by=settled.c.group_key, order_by=settled.c.run_token).label("n"),
        )
        .where(settled.c.run_token == given.c.run_token, given.c.chain_token.is_not(None), given.c.frees)
        .subquery("ended")
    )
    fits = dialect.rows(
        {"slot": sa.Text(), "queue": sa.Text(), "actor": sa.Text()}, sa.bindparam("fits", type_=sa.Text)
    )
    fitting = sa.exists().where(
        fits.c.slot == ended.c.slot, fits.c.queue == heads.c.queue, fits.c.actor == heads.c.actor
    )
    goes_on = sa.and_(ended.c.name == heads.c.name, ended.c.n == heads.c.n, fitting, sa.exists(sa.select(me.c.id)))
    return (
        sa.select(heads.c.id, ended.c.run_token.label("follows"), ended.c.chain_token)
        .select_from(
            heads.join(locked, locked.c.name == heads.c.name)
            .join(freed, freed.c.name == heads.c.name)
            .outerjoin(ended, goes_on)
        )
        .where(_likely(locked.c.paused_at.is_(None), heads.c.n <= locked.c.places - locked.c.held + freed.c.count))
        .cte("picked")
    )


def _released(tables: Tables, picked: sa.CTE, me: sa.CTE) -> sa.CTE:
    """The picked jobs, now either running here or queued under our publish lease."""
    jobs = tables.jobs
    c = jobs.c
    here = picked.c.chain_token.is_not(None)
    worker = sa.select(me.c.id).scalar_subquery()
    runs = {
        name: sa.case((here, value), else_=c[name])
        for name, value in running(tables, picked.c.chain_token, worker).items()
    }
    values = runs | {
        "state": sa.case((here, JobState.RUNNING.value), else_=JobState.QUEUED.value),
        "publish_at": sa.case((here, c.publish_at), else_=_LEASE),
        "dispatch": c.dispatch + 1,
        "redispatches": 0,
        "reason": None,
        "parked_at": None,
        "has_place": True,
    }
    return (
        sa.update(jobs)
        .where(c.id == picked.c.id, _likely(c.state == JobState.WAITING.value))
        .values(values)
        .returning(c.id, c.state, c.dispatch, c.run_token, c.attempt, c.crashes, c.queue, c.group_key, c.priority)
        .cte("released")
    )


def _counted(tables: Tables, freed: sa.CTE, released: sa.CTE) -> sa.CTE:
    """The rows of the groups, with updated counts."""
    g = tables.groups.c
    new = (
        sa.select(released.c.group_key.label("name"), sa.func.count().label("count"))
        .group_by(released.c.group_key)
        .subquery("new")
    )
    change = (
        sa.select(freed.c.name, freed.c.count, sa.func.coalesce(new.c.count, 0).label("new"))
        .select_from(freed.outerjoin(new, new.c.name == freed.c.name))
        .subquery("change")
    )
    values = {"held": g.held - change.c.count + change.c.new, "waiting": g.waiting - change.c.new}
    return (
        sa.update(tables.groups)
        .where(g.name == change.c.name)
        .values(values | moved(tables.groups))
        .returning(g.name)
        .cte("counted")
    )


def _likely(*conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """All of ``conditions``, in a form that the planner expects half of the rows to meet.

    Otherwise the planner expects a single row, and joins the parts of a large batch row by row.
    """
    return sa.case((sa.and_(*conditions), sa.true()), else_=sa.false())
