"""Settlements that concern nothing but their jobs, in one statement that is a transaction of its own.

They are nearly all of them. What it does not write, for whatever reason, is for `Settles.write`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.job import JobState

from .dialect import Dialect, encode_rows
from .settle_rows import Row, changes, columns
from .tables import Tables, UtcDateTime

KEPT = ("result", "error", "traceback")
"""What of an outcome belongs into the payload."""


class PlainSettles:
    """Writes outcomes, their attempts and payloads, but for jobs of groups in which something is parked."""

    def __init__(self, tables: Tables, dialect: Dialect) -> None:
        self._statements = {keeps: _settle(tables, dialect, keeps=keeps) for keeps in (False, True)}

    async def write(
        self, connection: AsyncConnection, outcomes: Sequence[tuple[Row, Row | None]], now: datetime
    ) -> set[int]:
        """Write the rows, with what belongs into their payloads, that their fences let through and nothing waits for.

        Returns the run tokens of those.
        """
        keeps = any(payload is not None for _, payload in outcomes)
        rows = [row if payload is None else {**row, **_kept(payload)} for row, payload in outcomes]
        parameters = {"batch": encode_rows(rows), "now": now}
        return set((await connection.execute(self._statements[keeps], parameters)).scalars())


def _kept(payload: Row) -> Row:
    # An attempt has an error, too, and cuts it at another length.
    return {f"kept_{name}": payload[name] for name in KEPT}


def _settle(tables: Tables, dialect: Dialect, *, keeps: bool) -> sa.Select[int]:
    jobs, a, p = tables.jobs, tables.attempts.c, tables.payloads.c
    also: dict[str, sa.types.TypeEngine[Any]] = {f"kept_{name}": sa.Text() for name in KEPT} if keeps else {}
    given = dialect.rows({**columns(), **also})
    b = sa.select(*given.c).cte("given")
    parked = jobs.alias("parked")
    behind = sa.exists().where(parked.c.group_key == jobs.c.group_key, parked.c.parked_at.is_not(None))
    settled = (
        sa.update(jobs)
        .where(jobs.c.id == b.c.id, jobs.c.run_token == b.c.run_token, jobs.c.state == JobState.RUNNING.value)
        .where(~behind)
        .values(changes(jobs, b, sa.bindparam("now", type_=UtcDateTime)))
        .returning(jobs.c.id, jobs.c.run_token, jobs.c.attempt, jobs.c.worker_id)
        .cte("settled")
    )
    s = settled.c
    attempt = {
        a.job_id: s.id,
        a.run_token: s.run_token,
        a.number: s.attempt + b.c.uncounted,
        a.worker_id: s.worker_id,
        a.started_at: b.c.started,
        a.finished_at: b.c.ended,
        a.outcome: b.c.outcome,
        a.error: b.c.error,
    }
    ended = sa.select(*attempt.values()).where(s.run_token == b.c.run_token)
    record = dialect.insert(tables.attempts).from_select(list(attempt), ended)
    effects = [record.on_conflict_do_nothing(index_elements=[a.job_id, a.run_token]).cte("recorded")]
    if keeps:
        # What is NULL stays as it is: a result does not erase the error of an earlier attempt.
        values = {name: sa.func.coalesce(b.c[f"kept_{name}"], p[name]) for name in KEPT}
        some = sa.or_(*(b.c[f"kept_{name}"].is_not(None) for name in KEPT))
        keep = sa.update(tables.payloads).where(p.job_id == s.id, s.run_token == b.c.run_token, some)
        effects.append(keep.values(values).cte("kept"))
    return sa.select(s.run_token).add_cte(*effects)
