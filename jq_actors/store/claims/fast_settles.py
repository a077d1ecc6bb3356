"""The fast path of settlements: one autocommitted statement, which in groups also gives the turn to the next jobs.

Nearly all settlements take this path. `Settles.write` handles those that it does not write, for whatever reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from jq_actors.model.job import JobId, JobState
from jq_actors.store.database.database import Database
from jq_actors.store.database.dialect import Dialect, encode_rows
from jq_actors.store.groups.rows import GroupPolicy, move_at
from jq_actors.store.groups.turns import GroupTurns, TurnsGiven, next_job
from jq_actors.store.records import Dispatch, Settlement
from jq_actors.store.rows.workers import Workers
from jq_actors.store.tables import Tables

from .chained_settles import chain_columns, chained_settlements
from .settle_rows import COLUMNS, KEPT, Row, keeping, keeps_something, recording, settling


class FastSettles:
    """Writes outcomes, attempts and payloads, and gives turns to the next jobs in groups that need nothing else."""

    def __init__(
        self, database: Database, tables: Tables, policy: GroupPolicy, turns: GroupTurns, workers: Workers
    ) -> None:
        self._database, self._policy, self._turns, self._workers = database, policy, turns, workers
        self._without_groups = {keeps: _settle(tables, database.dialect, keeps=keeps) for keeps in (False, True)}
        self._in_groups = chained_settlements(tables, database.dialect)

    async def write(
        self, settlements: Sequence[Settlement], rows: Sequence[Row], now: datetime, lease: datetime
    ) -> tuple[set[int], TurnsGiven] | None:
        """Write ``rows``, which `settled_row` made from ``settlements``, where the fences permit it.

        Returns the run tokens of the settlements written, and the released jobs, leased to this process until
        ``lease``. ``None``: unknown; the statement may be committed. Raises as `Database.try_autocommit` does.
        """
        if all(settlement.group is None for settlement in settlements):
            statement = self._without_groups[any(map(keeps_something, rows))]
            parameters = {"batch": encode_rows(rows), "now": now}
            written = await self._database.try_autocommit("settle", statement, parameters)
            return None if written is None else ({row.run_token for row in written}, TurnsGiven())
        batch = [{**row, **chain_columns(s)} for s, row in zip(settlements, rows, strict=True)]
        answer = await self._database.try_autocommit("settle", self._in_groups, self._parameters(batch, now, lease))
        return None if answer is None else _read(answer)

    def _parameters(self, batch: Sequence[Row], now: datetime, lease: datetime) -> dict[str, Any]:
        names = {row["group_key"] for row in batch if row["group_key"] is not None}
        rules = {name: self._policy.rules.rule_of(name) for name in names}
        groups = [{"name": name, "places": rule.concurrency, "overtake": rule.overtake} for name, rule in rules.items()]
        fits = [
            {"slot": slot, "queue": queue, "actor": actor}
            for slot, jobs in self._turns.fits.items()
            for queue, actor in jobs
        ]
        return {
            "batch": encode_rows(batch),
            "groups": encode_rows(groups),
            "most": max(rule.concurrency for rule in rules.values()),
            "fits": encode_rows(fits),
            "me": self._workers.my_id_or_none,
            "lease": lease,
            **move_at(now),
        }


def _read(rows: Iterable[Any]) -> tuple[set[int], TurnsGiven]:
    """Read the rows of `chained_settlements`: the settled runs, and the jobs released after them."""
    written, given = set[int](), TurnsGiven()
    for row in rows:
        if row.id is None:
            written.add(row.settled)
        elif row.settled is not None:
            # If the body has been deleted, the empty one cannot be decoded, and the job becomes unhandled.
            given.chained[row.settled] = next_job(row, (row.body or "").encode())
        elif row.body is not None:  # otherwise a relay notices
            given.dispatches.append(
                Dispatch(JobId(row.id), row.dispatch, row.queue, row.body.encode(), row.priority, row.group_key)
            )
    return written, given


def _settle(tables: Tables, dialect: Dialect, *, keeps: bool) -> sa.Select[int]:
    """The statement for jobs without groups. ``keeps``: some of the outcomes are stored in the payloads."""
    c = tables.jobs.c
    given = sa.select(*dialect.rows({**COLUMNS, **KEPT} if keeps else COLUMNS).c).cte("given")
    fence = (c.run_token == given.c.run_token, c.state == JobState.RUNNING.value, c.group_key.is_(None))
    settled = settling(tables, given, *fence).returning(c.id, c.run_token, c.attempt, c.worker_id).cte("settled")
    same = settled.c.run_token == given.c.run_token
    effects = [recording(tables, dialect, given, settled, same).cte("recorded")]
    if keeps:
        effects.append(keeping(tables, given, tables.payloads.c.job_id == settled.c.id, same).cte("kept"))
    return sa.select(settled.c.run_token).add_cte(*effects)
