"""Settling: the outcome of a run is written under its fence, the run token; in a group it gives the turn on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.events import Event
from jq_actors.model.group_rules import OnFailure
from jq_actors.model.job import JobState
from jq_actors.model.outcome import Failed, Interrupted
from jq_actors.store.database.dialect import Dialect, encode_rows
from jq_actors.store.database.lines import Executes
from jq_actors.store.groups.failures import FailedJob, GroupFailures
from jq_actors.store.groups.rows import GroupPolicy, GroupRows, LockedGroups
from jq_actors.store.groups.turns import GroupTurns, Successor, TurnsGiven, next_job
from jq_actors.store.records import Dispatch, NextJob, Settled, Settlement
from jq_actors.store.rows.bodies import Bodies
from jq_actors.store.rows.grants import granted_columns
from jq_actors.store.rows.settle_rows import Row, changes, columns, payload_row, settled_row
from jq_actors.store.rows.workers import Workers
from jq_actors.store.tables import BIGINT, JOB_ID, Tables, UtcDateTime

from .plain_settles import PlainSettles


@dataclass(slots=True)
class SettledBatch:
    """What became of settlements, by run token."""

    written: set[int] = field(default_factory=set)
    next: dict[int, NextJob] = field(default_factory=dict)
    dispatches: list[Dispatch] = field(default_factory=list)
    """Leased to this process, which has to publish them."""
    events: list[Event] = field(default_factory=list)
    """To be told when it is committed."""

    def joined(self, other: SettledBatch) -> SettledBatch:
        """This and what became of others."""
        return SettledBatch(
            self.written | other.written,
            self.next | other.next,
            self.dispatches + other.dispatches,
            self.events + other.events,
        )

    def answers(self, settlements: Sequence[Settlement]) -> list[Settled]:
        """The answers, in order. Of two outcomes for one run, the first stands."""
        first = first_of_each(settlements)
        return [
            Settled(s.run_token in self.written, self.next.get(s.run_token))
            if first[s.run_token] is s
            else Settled(written=False)
            for s in settlements
        ]


class Settles:
    """Writes outcomes, their attempts, what of them belongs into the payload, and whose turn it is after them."""

    def __init__(
        self,
        tables: Tables,
        dialect: Dialect,
        policy: GroupPolicy,
        rows: GroupRows,
        turns: GroupTurns,
        failures: GroupFailures,
        workers: Workers,
        bodies: Bodies,
    ) -> None:
        self._policy, self._rows, self._turns, self._failures = policy, rows, turns, failures
        self._workers, self._bodies = workers, bodies
        self._plain = PlainSettles(tables, dialect, policy, turns, workers)
        self._settle_statement = _settle(tables, dialect)
        self._record_statement = _record(tables, dialect)
        self._keep_statement = _keep(tables, dialect)
        self._find_statement = _find(tables, dialect)
        self._chained_statement = _chained(tables, dialect)

    async def write_plain(
        self,
        line: Executes,
        settlements: Sequence[Settlement],
        now: datetime,
        lease: datetime,
        batch: SettledBatch,
    ) -> None:
        """Write, in one statement, those that need no more, if their fences let them through.

        Of the others nobody knows yet what becomes of them: see `write`. Only on databases that
        `Dialect.nests_writes` is true of. Raises as `write` does.
        """
        plain = [s for s in first_of_each(settlements).values() if not self._is_special(s)]
        if plain:
            outcomes = [(self._row(s), payload_row(s)) for s in plain]
            written, given = await self._plain.write(line, plain, outcomes, now, lease)
            batch.written |= written
            _note(batch, given)

    async def write(
        self,
        connection: AsyncConnection,
        settlements: Sequence[Settlement],
        now: datetime,
        lease: datetime,
        *,
        again: bool,
    ) -> SettledBatch:
        """Write what its fence lets through. What is released is leased to this process until ``lease``.

        ``again``: an earlier try may have been committed; what it wrote counts as written.

        Raises:
          StoreError: an outcome has no form that a database can hold; names its job.
        """
        first, batch = first_of_each(settlements), SettledBatch()
        if any(s.chain is not None for s in first.values()):
            await self._workers.hold(connection, now)
        groups = await self._rows.lock(connection, {s.group for s in first.values() if s.group is not None}, now)
        rows = await self._settle(connection, first, groups, now)
        if rows:
            batch.written = {row.run_token for row in rows}
            names = self._free(rows, groups)  # before a cancellation counts anew
            batch.events = await self._stop(connection, first, rows, groups, now)
            successors = _successors(first, batch.written, names)
            given = await self._turns.give(
                connection, groups, now, names=names, publish_from=lease, successors=successors
            )
            _note(batch, given)
        if again:
            await self._find(connection, first, batch)
        return batch

    def _is_special(self, settlement: Settlement) -> bool:
        """Whether it does more to its group than to give its place to the next one."""
        group = settlement.group
        if group is None:
            return False
        stops = self._policy.rules.rule_of(group).on_failure is not OnFailure.CONTINUE
        return isinstance(settlement.outcome, Interrupted) or (stops and isinstance(settlement.outcome, Failed))

    def _row(self, settlement: Settlement, *, paused: bool = False) -> Row:
        return settled_row(settlement, self._policy.rules, paused=paused)

    async def _settle(
        self, connection: AsyncConnection, first: Mapping[int, Settlement], groups: LockedGroups, now: datetime
    ) -> Sequence[sa.Row[Any]]:
        rows = [self._row(s, paused=s.group is not None and groups[s.group].paused is not None) for s in first.values()]
        batch = {"batch": encode_rows(rows)}
        settled = (await connection.execute(self._settle_statement, {**batch, "now": now})).all()
        if settled:
            await connection.execute(self._record_statement, batch)
            await self._keep(connection, [first[row.run_token] for row in settled])
        return settled

    async def _keep(self, connection: AsyncConnection, settlements: Sequence[Settlement]) -> None:
        kept = [payload for payload in map(payload_row, settlements) if payload is not None]
        if kept:
            await connection.execute(self._keep_statement, {"batch": encode_rows(kept)})

    async def _stop(
        self,
        connection: AsyncConnection,
        first: Mapping[int, Settlement],
        rows: Sequence[sa.Row[Any]],
        groups: LockedGroups,
        now: datetime,
    ) -> list[Event]:
        failed = [
            FailedJob(row.id, row.group_key, outcome.failure.error)
            for row in rows
            if row.group_key is not None and isinstance(outcome := first[row.run_token].outcome, Failed)
        ]
        return await self._failures.stop(connection, groups, failed, now)

    def _free(self, rows: Iterable[sa.Row[Any]], groups: LockedGroups) -> list[str]:
        """Count what the runs of ``rows`` have left; returns their groups.

        Also those in which they keep their places: others, that came before them, may have to have these now.
        """
        names: dict[str, None] = {}
        for row in rows:
            if row.group_key is not None:
                names[row.group_key] = None
                if not row.has_place:
                    groups.add(row.group_key, held=-1, waiting=int(row.state == JobState.WAITING))
        return list(names)

    async def _find(self, connection: AsyncConnection, first: Mapping[int, Settlement], batch: SettledBatch) -> None:
        """What an earlier try has written, and let run."""
        lost = [settlement for token, settlement in first.items() if token not in batch.written]
        rows = encode_rows([self._row(settlement) for settlement in lost])
        batch.written |= set((await connection.execute(self._find_statement, {"batch": rows})).scalars())
        followed = {s.chain.run_token: s.run_token for s in lost if s.chain is not None}
        if followed:
            tokens = encode_rows([{"run_token": token} for token in followed])
            parameters = {"batch": tokens, "me": self._workers.my_id}
            found = (await connection.execute(self._chained_statement, parameters)).all()
            bodies = await self._bodies.of(connection, [row.id for row in found])
            batch.next |= {followed[row.run_token]: next_job(row, bodies[row.id]) for row in found if row.id in bodies}


def first_of_each(settlements: Sequence[Settlement]) -> dict[int, Settlement]:
    """One for each run, by run token: of two outcomes for one run, the first stands."""
    return {settlement.run_token: settlement for settlement in reversed(settlements)}


def _note(batch: SettledBatch, given: TurnsGiven) -> None:
    batch.next |= given.chained
    batch.dispatches += given.dispatches


def _successors(
    first: Mapping[int, Settlement], written: set[int], groups: Iterable[str]
) -> dict[str, list[Successor]]:
    wanted, successors = set(groups), defaultdict[str, list[Successor]](list)
    for token, settlement in first.items():
        if token in written and settlement.group in wanted and settlement.chain is not None:
            successors[settlement.group].append(Successor(token, settlement.chain))
    return successors


def _settle(tables: Tables, dialect: Dialect) -> sa.UpdateBase:
    c, rows = tables.jobs.c, dialect.rows(columns())
    b = rows.c
    now = sa.bindparam("now", type_=UtcDateTime)
    return (
        sa.update(tables.jobs)
        .where(c.id == b.id, c.run_token == b.run_token, c.state == JobState.RUNNING.value)
        .values(changes(tables.jobs, rows, now))
        .returning(c.id, c.run_token, c.group_key, c.state, c.has_place)
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


def _chained(tables: Tables, dialect: Dialect) -> sa.Select[Any]:
    c, b = tables.jobs.c, dialect.rows({"run_token": BIGINT}).c
    mine = (c.state == JobState.RUNNING.value, c.worker_id == sa.bindparam("me", type_=sa.Text))
    # By the index of unfinished rows: an answer is lost seldom.
    return sa.select(*granted_columns(tables)).where(
        c.final_state.is_(None), *mine, c.run_token.in_(sa.select(b.run_token))
    )
