"""Settling: the outcome of a run is written under its fence, the run token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.events import Event
from jq_actors.job import JobState
from jq_actors.outcome import Failed

from .dialect import Dialect, encode_rows
from .group_ends import GroupEnds
from .group_failures import FailedJob
from .group_rows import GroupPolicy
from .plain_settles import PlainSettles
from .records import Settlement
from .settle_rows import changes, columns, payload_row, settled_row, stored
from .tables import JOB_ID, Tables, UtcDateTime


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of settlements. The events are to be told when it is committed."""

    written: list[bool]
    """In their order."""
    events: list[Event]


class Settles:
    """Writes outcomes, their attempts, and what of them belongs into the payload."""

    def __init__(self, tables: Tables, dialect: Dialect, groups: GroupEnds, policy: GroupPolicy) -> None:
        self._groups, self._policy = groups, policy
        self._plain = PlainSettles(tables, dialect)
        self._settle_statement = _settle(tables, dialect)
        self._record_statement = _record(tables, dialect)
        self._keep_statement = _keep(tables, dialect)
        self._find_statement = _find(tables, dialect)

    async def write_plain(
        self, connection: AsyncConnection, settlements: Sequence[Settlement], now: datetime, written: set[int]
    ) -> None:
        """Write those that concern nothing but their jobs, if their fences let them through.

        Notes their run tokens in ``written``; of the others nobody knows yet what becomes of them: see `write`. Only
        on databases that `Dialect.nests_writes` is true of. Raises as `write` does.
        """
        may_stop = self._groups.may_stop
        plain = [s for s in first_of_each(settlements).values() if not (may_stop and isinstance(s.outcome, Failed))]
        if plain:
            outcomes = [(stored(settled_row, s), stored(payload_row, s)) for s in plain]
            written |= await self._plain.write(connection, outcomes, now)

    async def write(
        self, connection: AsyncConnection, settlements: Sequence[Settlement], now: datetime, *, again: bool
    ) -> Settled:
        """Write what its fence lets through.

        ``again``: an earlier try may have been committed; what it wrote counts as written.

        Raises:
          StoreError: an outcome has no form that a database can hold; names its job.
        """
        first = first_of_each(settlements)
        batch = {"batch": encode_rows([stored(settled_row, settlement) for settlement in first.values()])}
        failing = {s.job_id: s.outcome.failure for s in first.values() if isinstance(s.outcome, Failed)}
        locked = await self._groups.lock(connection, failing, now)
        rows = (await connection.execute(self._settle_statement, {**batch, "now": now})).all()
        written = {row.run_token for row in rows}
        events: list[Event] = []
        if written:
            await connection.execute(self._record_statement, batch)
            await self._keep(connection, [first[token] for token in written])
            failed = [FailedJob(row.id, failing[row.id].error) for row in rows if row.state == JobState.FAILED]
            events = await self._groups.ended(connection, locked, failed, self._freed(rows), now)
        if again and len(written) < len(first):
            written |= set((await connection.execute(self._find_statement, batch)).scalars())
        return Settled([s.run_token in written and s is first[s.run_token] for s in settlements], events)

    def _freed(self, rows: Sequence[sa.Row[Any]]) -> set[str]:
        """The groups in which those behind may go on."""
        return {
            row.group_key
            for row in rows
            if row.group_key is not None
            and (
                row.final_state is not None
                or (row.state == JobState.RETRYING and self._policy.rules.rule_of(row.group_key).overtake)
            )
        }

    async def _keep(self, connection: AsyncConnection, settlements: Sequence[Settlement]) -> None:
        payloads = [payload for payload in (stored(payload_row, s) for s in settlements) if payload is not None]
        if payloads:
            await connection.execute(self._keep_statement, {"batch": encode_rows(payloads)})


def first_of_each(settlements: Sequence[Settlement]) -> dict[int, Settlement]:
    """One for each run, by run token: of two outcomes for one run, the first stands."""
    return {settlement.run_token: settlement for settlement in reversed(settlements)}


def _settle(tables: Tables, dialect: Dialect) -> sa.UpdateBase:
    c, rows = tables.jobs.c, dialect.rows(columns())
    b = rows.c
    now = sa.bindparam("now", type_=UtcDateTime)
    return (
        sa.update(tables.jobs)
        .where(c.id == b.id, c.run_token == b.run_token, c.state == JobState.RUNNING.value)
        .values(changes(tables.jobs, rows, now))
        .returning(c.id, c.run_token, c.group_key, c.state, c.final_state)
    )


def _record(tables: Tables, dialect: Dialect) -> sa.Insert:
    c, b, a = tables.jobs.c, dialect.rows(columns()).c, tables.attempts.c
    attempt = {
        a.job_id: b.id,
        a.run_token: b.run_token,
        a.number: c.attempt + b.uncounted,
        a.worker_id: c.worker_id,
        a.started_at: b.started,
        a.finished_at: b.ended,
        a.outcome: b.outcome,
        a.error: b.error,
    }
    # From the rows themselves, after they were settled: what was refused because another run holds the claim has
    # another token there, and what was refused because this run had ended before has its attempt already.
    rows = sa.select(*attempt.values()).where(
        c.id == b.id, c.run_token == b.run_token, c.state != JobState.RUNNING.value
    )
    insert = dialect.insert(tables.attempts).from_select(list(attempt), rows)
    return insert.on_conflict_do_nothing(index_elements=[a.job_id, a.run_token])


def _keep(tables: Tables, dialect: Dialect) -> sa.Update:
    payloads = tables.payloads
    kept = {name: payloads.c[name].type for name in ("result", "error", "traceback")}
    b = dialect.rows({"job_id": JOB_ID, **kept}).c
    # What is NULL in the batch stays as it is: a result does not erase the error of an earlier attempt.
    return (
        sa.update(payloads)
        .where(payloads.c.job_id == b.job_id)
        .values({name: sa.func.coalesce(b[name], payloads.c[name]) for name in kept})
    )


def _find(tables: Tables, dialect: Dialect) -> sa.Select[int]:
    a, b = tables.attempts.c, dialect.rows(columns()).c
    return sa.select(a.run_token).where(
        a.job_id == b.id, a.run_token == b.run_token, a.outcome == b.outcome, a.finished_at == b.ended
    )
