"""Settlements: write the outcome of a run, fenced by its run token, and give the turn to the group's next job."""

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
from jq_actors.store.database.database import Database
from jq_actors.store.database.dialect import Dialect, encode_column, encode_rows
from jq_actors.store.groups.rows import GroupPolicy, GroupRows, LockedGroups
from jq_actors.store.groups.stops import FailedJob, GroupStops
from jq_actors.store.groups.turns import GroupTurns, Successor, TurnsGiven, next_job
from jq_actors.store.records import Dispatch, NextJob, Settled, Settlement
from jq_actors.store.rows.dispatches import Bodies
from jq_actors.store.rows.grants import granted_before
from jq_actors.store.rows.workers import Workers
from jq_actors.store.tables import Tables

from .fast_settles import FastSettles
from .settle_rows import COLUMNS, KEPT, Row, keeping, keeps_something, recording, settled_row, settling


@dataclass(slots=True)
class SettledBatch:
    """The results of settlements, by run token."""

    written: set[int] = field(default_factory=set)
    next: dict[int, NextJob] = field(default_factory=dict)
    dispatches: list[Dispatch] = field(default_factory=list)
    """Leased to this process, which must publish them."""
    events: list[Event] = field(default_factory=list)
    """To be emitted once the batch is committed."""

    def add_turns(self, given: TurnsGiven) -> None:
        """Add the jobs that these turns released."""
        self.next |= given.chained
        self.dispatches += given.dispatches

    def add(self, other: SettledBatch) -> None:
        """Add the results of other settlements."""
        self.written |= other.written
        self.next |= other.next
        self.dispatches += other.dispatches
        self.events += other.events

    def answers(self, settlements: Sequence[Settlement]) -> list[Settled]:
        """Return the answers, in order. Of two outcomes for one run, the first one counts."""
        first = first_of_each(settlements)
        return [
            Settled(s.run_token in self.written, self.next.get(s.run_token))
            if first[s.run_token] is s
            else Settled(written=False)
            for s in settlements
        ]


class Settles:
    """Writes outcomes, with their attempts and payloads, and gives the turns to the next jobs."""

    def __init__(
        self,
        database: Database,
        tables: Tables,
        policy: GroupPolicy,
        rows: GroupRows,
        turns: GroupTurns,
        stops: GroupStops,
        workers: Workers,
        bodies: Bodies,
    ) -> None:
        self._database, self._policy, self._rows, self._turns = database, policy, rows, turns
        self._stops, self._workers, self._bodies = stops, workers, bodies
        dialect = database.dialect
        self._fast = FastSettles(database, tables, policy, turns, workers) if dialect.has_writable_ctes else None
        c, given = tables.jobs.c, dialect.rows({**COLUMNS, **KEPT})
        this_run = (c.id == given.c.id, c.run_token == given.c.run_token)
        settle = settling(tables, given, c.run_token == given.c.run_token, c.state == JobState.RUNNING.value)
        self._settle_statement = settle.returning(c.id, c.run_token, c.group_key, c.state, c.has_place)
        self._record_statement = recording(tables, dialect, given, tables.jobs, *this_run)
        self._keep_statement = keeping(tables, given, tables.payloads.c.job_id == given.c.id)
        self._find_statement = _find(tables, dialect)
        self._chained_statement = granted_before(tables, dialect)

    async def commit(
        self, settlements: Sequence[Settlement], now: datetime, lease: datetime, *, may_be_committed: bool
    ) -> SettledBatch:
        """Commit ``settlements``: the fast path writes what it can, and `write` writes the others.

        After an error, some of them may be committed. The next try must then set ``may_be_committed``.

        Raises:
          StoreUnavailableError, StoreUnknownError, StoreError: as `Database.write` does.
          StoreError: a database cannot store an outcome. The message names the job.
        """
        batch = SettledBatch()
        if self._fast is not None and not may_be_committed:
            settled = await self.try_fast_path(self._fast, settlements, now, lease)
            may_be_committed = settled is None
            batch = settled or batch
        rest = [settlement for settlement in settlements if settlement.run_token not in batch.written]
        if rest:
            batch.add(
                await self._database.write(lambda c: self.write(c, rest, now, lease, may_be_committed=may_be_committed))
            )
        return batch

    async def try_fast_path(
        self, fast: FastSettles, settlements: Sequence[Settlement], now: datetime, lease: datetime
    ) -> SettledBatch | None:
        """Write what one statement can, where the fences permit it. ``None``: unknown; it may be committed."""
        simple = [s for s in first_of_each(settlements).values() if not self._is_special(s)]
        batch = SettledBatch()
        if simple:
            answer = await fast.write(simple, [self._row(s) for s in simple], now, lease)
            if answer is None:
                return None
            batch.written, given = answer
            batch.add_turns(given)
        return batch

    async def write(
        self,
        connection: AsyncConnection,
        settlements: Sequence[Settlement],
        now: datetime,
        lease: datetime,
        *,
        may_be_committed: bool,
    ) -> SettledBatch:
        """Write ``settlements`` where the fences permit it. Released jobs are leased to this process until ``lease``.

        ``may_be_committed``: an earlier try may have written some of them; those count as written.

        Raises:
          StoreError: a database cannot store an outcome. The message names the job.
        """
        first, batch = first_of_each(settlements), SettledBatch()
        if any(s.chain is not None for s in first.values()):
            await self._workers.hold(connection, now)
        groups = await self._rows.lock(connection, {s.group for s in first.values() if s.group is not None}, now)
        rows = await self._settle(connection, first, groups, now)
        if rows:
            batch.written = {row.run_token for row in rows}
            names = self._free(rows, groups)  # before cancellations update the counts
            batch.events = await self._stop(connection, first, rows, groups, now)
            successors = _successors(first, batch.written, names)
            batch.add_turns(
                await self._turns.give(connection, groups, now, names=names, publish_from=lease, successors=successors)
            )
        if may_be_committed:
            await self._find(connection, first, batch)
        return batch

    def _is_special(self, settlement: Settlement) -> bool:
        """Whether the settlement does more to its group than give its place to the next job."""
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
        parameters = {"batch": encode_rows(rows), "now": now}
        settled = (await connection.execute(self._settle_statement, parameters)).all()
        tokens = {row.run_token for row in settled}
        written = [row for row in rows if row["run_token"] in tokens]
        if written:
            batch = {"batch": encode_rows(written)}
            await connection.execute(self._record_statement, batch)
            if any(map(keeps_something, written)):
                await connection.execute(self._keep_statement, batch)
        return settled

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
        return await self._stops.after_failures(connection, groups, failed, now)

    def _free(self, rows: Iterable[sa.Row[Any]], groups: LockedGroups) -> list[str]:
        """Count the places that the runs of ``rows`` have freed, and return all groups of these runs.

        These include groups in which a run keeps its place, because a job that comes before it may now have to get
        that place.
        """
        names: dict[str, None] = {}
        for row in rows:
            if row.group_key is not None:
                names[row.group_key] = None
                if not row.has_place:
                    groups.add(row.group_key, held=-1, waiting=int(row.state == JobState.WAITING))
        return list(names)

    async def _find(self, connection: AsyncConnection, first: Mapping[int, Settlement], batch: SettledBatch) -> None:
        """Add what an earlier try has written, and the jobs that it started."""
        lost = [settlement for token, settlement in first.items() if token not in batch.written]
        rows = encode_rows([self._row(settlement) for settlement in lost])
        batch.written |= set((await connection.execute(self._find_statement, {"batch": rows})).scalars())
        followed = {s.chain.run_token: s.run_token for s in lost if s.chain is not None}
        if followed:
            parameters = {"batch": encode_column("run_token", followed), "me": self._workers.my_id}
            found = (await connection.execute(self._chained_statement, parameters)).all()
            bodies = await self._bodies.of(connection, [row.id for row in found])
            batch.next |= {followed[row.run_token]: next_job(row, bodies[row.id]) for row in found if row.id in bodies}


def first_of_each(settlements: Sequence[Settlement]) -> dict[int, Settlement]:
    """Return the settlement of each run, by run token. Of two outcomes for one run, the first one counts."""
    return {settlement.run_token: settlement for settlement in reversed(settlements)}


def _successors(
    first: Mapping[int, Settlement], written: set[int], groups: Iterable[str]
) -> dict[str, list[Successor]]:
    wanted, successors = set(groups), defaultdict[str, list[Successor]](list)
    for token, settlement in first.items():
        if token in written and settlement.group in wanted and settlement.chain is not None:
            successors[settlement.group].append(Successor(token, settlement.chain))
    return successors


def _find(tables: Tables, dialect: Dialect) -> sa.Select[int]:
    a, b = tables.attempts.c, dialect.rows(COLUMNS).c
    return sa.select(a.run_token).where(
        a.job_id == b.id, a.run_token == b.run_token, a.outcome == b.outcome, a.finished_at == b.ended
    )
