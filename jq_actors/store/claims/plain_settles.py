"""Settlements as one statement that is a transaction of its own; in a group it gives the turn on.

Nearly all settlements are written so. What it does not write, for whatever reason, is for `Settles.write`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from jq_actors.model.job import JobId, JobState
from jq_actors.store.database.dialect import Dialect, encode_rows
from jq_actors.store.database.lines import Executes
from jq_actors.store.groups.chains import CHAIN_COLUMNS, chained_settlements
from jq_actors.store.groups.rows import GroupPolicy, move_at
from jq_actors.store.groups.turns import GroupTurns, TurnsGiven, next_job
from jq_actors.store.records import Dispatch, Settlement
from jq_actors.store.rows.settle_rows import Row, changes, columns
from jq_actors.store.rows.workers import Workers
from jq_actors.store.tables import Tables, UtcDateTime

KEPT = ("result", "error", "traceback")
"""What of an outcome belongs into the payload."""

Outcomes = Sequence[tuple[Row, Row | None]]
"""What becomes of the jobs' rows, and of their payloads."""


class PlainSettles:
    """Writes outcomes, their attempts and payloads, and turns in groups in which nothing else is to be done."""

    def __init__(
        self, tables: Tables, dialect: Dialect, policy: GroupPolicy, turns: GroupTurns, workers: Workers
    ) -> None:
        self._policy, self._turns, self._workers = policy, turns, workers
        self._alone = {keeps: _alone(tables, dialect, keeps=keeps) for keeps in (False, True)}
        self._in_groups = chained_settlements(tables, dialect, _effects)

    async def write(
        self,
        line: Executes,
        settlements: Sequence[Settlement],
        outcomes: Outcomes,
        now: datetime,
        lease: datetime,
    ) -> tuple[set[int], TurnsGiven]:
        """Write ``outcomes``, those of ``settlements``, as far as their fences let them through.

        Returns the run tokens of those that are written, and what was released: leased to this process until ``lease``.
        """
        if all(settlement.group is None for settlement in settlements):
            keeps = any(payload is not None for _, payload in outcomes)
            batch = encode_rows([_given(row, payload, keeps=keeps) for row, payload in outcomes])
            written = await line.execute(self._alone[keeps], {"batch": batch, "now": now})
            return {row.run_token for row in written}, TurnsGiven()
        rows = [
            {**_given(row, payload, keeps=True), **_chain(settlement)}
            for settlement, (row, payload) in zip(settlements, outcomes, strict=True)
        ]
        groups = self._groups(settlements)
        parameters: dict[str, Any] = {"batch": encode_rows(rows), "groups": encode_rows(groups), **self._here()}
        parameters |= {"most": max(group["places"] for group in groups), "lease": lease}
        parameters |= move_at(now)
        return _read(await line.execute(self._in_groups, parameters))

    def _groups(self, settlements: Sequence[Settlement]) -> list[Row]:
        names = {settlement.group for settlement in settlements if settlement.group is not None}
        rules = {name: self._policy.rules.rule_of(name) for name in names}
        return [{"name": name, "places": rule.concurrency, "overtake": rule.overtake} for name, rule in rules.items()]

    def _here(self) -> dict[str, Any]:
        """What can run in this process."""
        fits = [
            {"slot": slot, "queue": queue, "actor": actor}
            for slot, jobs in self._turns.fits.items()
            for queue, actor in jobs
        ]
        return {"fits": encode_rows(fits), "me": self._workers.my_id_or_none}


def _given(row: Row, payload: Row | None, *, keeps: bool) -> Row:
    # An attempt has an error, too, and cuts it at another length.
    kept = {f"kept_{name}": None if payload is None else payload[name] for name in KEPT} if keeps else {}
    return {**row, **kept}


def _chain(settlement: Settlement) -> Row:
    chain = settlement.chain
    return dict(zip(CHAIN_COLUMNS, (None, None) if chain is None else (chain.run_token, chain.slot), strict=True))


def _read(rows: Iterable[Any]) -> tuple[set[int], TurnsGiven]:
    """The rows of the statement for groups: those settled, and those that were released after them."""
    written, given = set[int](), TurnsGiven()
    for row in rows:
        if row.id is None:
            written.add(row.settled)
        elif row.settled is not None:
            # Without a body, which somebody has deleted, it cannot be decoded, and becomes unhandled.
            given.chained[row.settled] = next_job(row, (row.body or "").encode())
        elif row.body is not None:  # else a relay finds that out
            given.dispatches.append(
                Dispatch(JobId(row.id), row.dispatch, row.queue, row.body.encode(), row.priority, row.group_key)
            )
    return written, given


def _alone(tables: Tables, dialect: Dialect, *, keeps: bool) -> sa.Select[int]:
    jobs = tables.jobs
    also: dict[str, sa.types.TypeEngine[Any]] = {f"kept_{name}": sa.Text() for name in KEPT} if keeps else {}
    given = sa.select(*dialect.rows({**columns(), **also}).c).cte("given")
    settled = (
        sa.update(jobs)
        .where(jobs.c.id == given.c.id, jobs.c.run_token == given.c.run_token)
        .where(jobs.c.state == JobState.RUNNING.value, jobs.c.group_key.is_(None))
        .values(changes(jobs, given, sa.bindparam("now", type_=UtcDateTime)))
        .returning(jobs.c.id, jobs.c.run_token, jobs.c.attempt, jobs.c.worker_id)
        .cte("settled")
    )
    return sa.select(settled.c.run_token).add_cte(*_effects(tables, dialect, given, settled, keeps=keeps))


def _effects(tables: Tables, dialect: Dialect, given: sa.CTE, settled: sa.CTE, *, keeps: bool = True) -> list[sa.CTE]:
    """What is written besides the rows of jobs that are settled: their attempts, and what belongs into payloads."""
    a, p, b, s = tables.attempts.c, tables.payloads.c, given, settled.c
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
    return effects
