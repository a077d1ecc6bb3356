"""Claims: the compare-and-set that makes a delivery an attempt.

In the common case, one UPDATE grants the whole batch. Jobs in groups need no special treatment there, because a queued
job of a group already holds one of its places. For each claim that the UPDATE does not grant, `claim_rules.judge`
decides from the job's row. If the verdict requires work (adopt, take over), a transaction does it, again by
compare-and-sets, under the locks of the groups concerned. A claim that loses a compare-and-set is judged again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.model.claim_rules import Owner, RowView, Verdict, judge
from jq_actors.model.job import JobState
from jq_actors.store.database.database import Database
from jq_actors.store.database.dialect import Dialect, encode_column, encode_rows
from jq_actors.store.groups.rows import GroupRows, LockedGroups
from jq_actors.store.groups.turns import GroupTurns, next_job
from jq_actors.store.inserts.inserts import Inserts
from jq_actors.store.records import Claim, ClaimRequest, Leases
from jq_actors.store.rows.dispatches import Bodies
from jq_actors.store.rows.grants import grant_of_queued, granted_before
from jq_actors.store.rows.workers import Workers, known_dead
from jq_actors.store.tables import JOB_ID, Tables

from .claim_followups import COME_AGAIN, ClaimResults, Followups, first_of_each
from .lost_runs import run_columns
from .take_overs import BrokenChains, TakeOvers

ROUNDS = 5
"""How often a request is judged before it has to be tried again later. Only a lost race needs a second round."""

Row = sa.Row[Any]


class Claims:
    """Decides whether deliveries become attempts."""

    def __init__(
        self,
        database: Database,
        tables: Tables,
        leases: Leases,
        workers: Workers,
        inserts: Inserts,
        rows: GroupRows,
        turns: GroupTurns,
        take_overs: TakeOvers,
        bodies: Bodies,
    ) -> None:
        self._database, dialect = database, database.dialect
        self._leases, self._workers, self._inserts, self._bodies = leases, workers, inserts, bodies
        self._rows, self._turns, self._take_overs = rows, turns, take_overs
        self._chains = BrokenChains(tables, dialect, rows)
        self._has_fast_path = dialect.has_writable_ctes
        self._grant_statement = grant_of_queued(tables, dialect)
        self._look_statement = _look(tables, dialect)
        self._granted_statement = granted_before(tables, dialect)

    async def commit(self, requests: Sequence[ClaimRequest], now: datetime, *, may_be_committed: bool) -> ClaimResults:
        """Answer all ``requests``: the fast path grants what it can, and `write` answers the others.

        After an error, some claims may be committed. The next try must then set ``may_be_committed``.

        Raises:
          StoreUnavailableError, StoreUnknownError, StoreError: as `Database.write` does.
        """
        results = ClaimResults()
        if self._has_fast_path and not may_be_committed:
            granted = await self.try_fast_path(requests, now)
            may_be_committed = granted is None
            results = granted or results
        rest = results.unanswered(requests)
        if not rest:
            return results
        others = await self._database.write(lambda c: self.write(c, rest, now, may_be_committed=may_be_committed))
        others.answers |= results.answers
        return others

    async def try_fast_path(self, requests: Sequence[ClaimRequest], now: datetime) -> ClaimResults | None:
        """Grant what one autocommitted statement can grant. ``None``: unknown; the statement may be committed."""
        results = ClaimResults()
        parameters = self._grant_parameters(requests, now)
        rows = await self._database.try_autocommit("claim", self._grant_statement, parameters)
        if rows is None:
            return None
        for row in rows:
            results.grant(row)
        return results

    async def write(
        self, connection: AsyncConnection, requests: Sequence[ClaimRequest], now: datetime, *, may_be_committed: bool
    ) -> ClaimResults:
        """Answer all ``requests``, on behalf of the worker in this process.

        ``may_be_committed``: an earlier try may have granted some of them; those stay granted.
        """
        claimed = ClaimResults()
        if may_be_committed:
            await self._find_granted(connection, requests, claimed)
        elif not self._has_fast_path:
            await self._grant(connection, requests, now, claimed)
        groups = LockedGroups({})
        for round_ in range(ROUNDS):
            open_ = claimed.unanswered(requests)
            if not open_:
                break
            if not round_:
                # A claim was not granted. The cause may be that a relay considers this worker dead and removed its row.
                await self._workers.hold(connection, now)
                # Lock the groups once, before the first job is locked. A claim that turns out to need another group is
                # tried again later.
                groups = await self._lock_groups(connection, open_, now)
            await self._judge(connection, open_, groups, now, claimed)
        for request in claimed.unanswered(requests):
            claimed.answers[request.run_token] = Claim(Verdict.HOLD, look_again=COME_AGAIN)
        await self._rows.write(connection, groups, now)
        return claimed

    async def _find_granted(
        self, connection: AsyncConnection, requests: Sequence[ClaimRequest], claimed: ClaimResults
    ) -> None:
        # Search by run token alone, because the granted job may not be the delivery's own.
        batch = {"batch": encode_column("run_token", [request.run_token for request in requests])}
        own = {request.run_token: request.job_id for request in requests}
        rows = (await connection.execute(self._granted_statement, {**batch, "me": self._workers.my_id})).all()
        bodies = await self._bodies.of(connection, [row.id for row in rows if row.id != own[row.run_token]])
        for row in rows:
            instead = next_job(row, bodies[row.id]) if row.id in bodies else None
            claimed.grant(row, instead)

    async def _grant(
        self, connection: AsyncConnection, requests: Sequence[ClaimRequest], now: datetime, claimed: ClaimResults
    ) -> None:
        if requests:
            for row in await connection.execute(self._grant_statement, self._grant_parameters(requests, now)):
                claimed.grant(row)

    def _grant_parameters(self, requests: Sequence[ClaimRequest], now: datetime) -> dict[str, Any]:
        rows = [{"id": r.job_id, "dispatch": r.dispatch, "run_token": r.run_token} for r in first_of_each(requests)]
        return {"batch": encode_rows(rows), "me": self._workers.my_id, "now": now}

    async def _lock_groups(
        self, connection: AsyncConnection, requests: Sequence[ClaimRequest], now: datetime
    ) -> LockedGroups:
        """Lock the groups of the requests that need more than a grant."""
        rows = await self._seen(connection, requests)
        followups, _ = await self._verdicts(connection, requests, rows, now)
        return await self._rows.lock(connection, followups.groups(rows), now)

    async def _judge(
        self,
        connection: AsyncConnection,
        requests: Sequence[ClaimRequest],
        groups: LockedGroups,
        now: datetime,
        claimed: ClaimResults,
    ) -> None:
        rows = await self._seen(connection, requests)
        followups, answers = await self._verdicts(connection, requests, rows, now)
        claimed.answers |= answers
        wanted = followups.adopt.values()
        adopted = [r for r in wanted if r.adopt and (r.adopt.group is None or r.adopt.group in groups)]
        if adopted:
            granted = await self._inserts.adopt(connection, adopted, groups, self._workers.my_id, now)
            claimed.answers |= granted
        runs = {job_id: (rows[job_id], request) for job_id, request in followups.take_over.items()}
        await self._take_overs.write(connection, runs, groups, now, claimed)
        await self._grant(connection, followups.grant, now, claimed)

    async def _seen(self, connection: AsyncConnection, requests: Sequence[ClaimRequest]) -> dict[str, Row]:
        """Read the rows of the requests' jobs, and of the jobs running in chains that redelivered requests began."""
        batch = encode_rows([{"id": job_id} for job_id in {request.job_id for request in requests}])
        rows = {row.id: row for row in await connection.execute(self._look_statement, {"batch": batch})}
        began = {
            row.group_key
            for request in requests
            if request.redelivered and (row := rows.get(request.job_id)) is not None and _is_over(row, request)
        }
        return rows | await self._chains.running(connection, began) if began else rows

    async def _verdicts(
        self, connection: AsyncConnection, requests: Sequence[ClaimRequest], rows: Mapping[str, Row], now: datetime
    ) -> tuple[Followups, dict[int, Claim]]:
        dead = await _dead_owners(rows.values())
        followups, answers = Followups(), dict[int, Claim]()
        for request in requests:
            row = rows.get(request.job_id)
            if row is not None and row.state == JobState.RUNNING and self._workers.is_me(row.worker_id):
                answers[request.run_token] = self._own(row, request)
                continue
            view = None if row is None else self._view(row, dead)
            verdict = judge(view, request.dispatch, now, promised=request.promised)
            if row is not None and request.redelivered and _is_over(row, request):
                answer = self._of_chain(request, row, rows, dead, now, followups)
            else:
                answer = followups.answer(verdict, request, view, now)
            if answer is not None:
                answers[request.run_token] = answer
        return followups, answers

    def _of_chain(
        self,
        request: ClaimRequest,
        row: Row,
        rows: Mapping[str, Row],
        dead: frozenset[str],
        now: datetime,
        followups: Followups,
    ) -> Claim | None:
        """Answer a delivery whose job has ended but may have begun a chain: take over or watch that chain's run."""
        answer = Claim(Verdict.DROP_FINAL)
        for other in rows.values():
            # Only runs of the worker that had this delivery matter. Other workers finish their own runs of the group.
            if other.state != JobState.RUNNING or other.group_key != row.group_key or other.worker_id != row.worker_id:
                continue
            view = self._view(other, dead)
            verdict = judge(view, other.dispatch, now, promised=True)
            if verdict is Verdict.TAKE_OVER and other.id not in followups.take_over:
                followups.take_over[other.id] = request
                return None
            if verdict is Verdict.HOLD and not self._workers.is_me(other.worker_id):
                answer = Claim(Verdict.HOLD, look_again=COME_AGAIN, group=row.group_key)
        return answer

    def _view(self, row: Row, dead: frozenset[str]) -> RowView:
        owner = None
        if row.state == JobState.RUNNING and row.lease_until is not None:
            lease_until = self._workers.lease_end(row.lease_until)
            owner = Owner(row.worker_id, lease_until, known_dead=row.worker_id in dead)
        return RowView(JobState(row.state), row.dispatch, owner)

    def _own(self, row: Row, request: ClaimRequest) -> Claim:
        if row.run_token == request.run_token:  # granted by a try whose answer was lost
            return Claim(Verdict.GRANT, row.attempt, row.crashes, group=row.group_key)
        # Another delivery of the job is running in this process, even if its lease has expired. The caller decides
        # what to do about it.
        return Claim(Verdict.HOLD, look_again=self._leases.worker, own_token=row.run_token, group=row.group_key)


def _is_over(row: Row, request: ClaimRequest) -> bool:
    """Whether the delivery is of a grouped job but cannot start its own run, so that it may have begun a chain."""
    is_current = row.dispatch == request.dispatch and row.state in (JobState.QUEUED, JobState.RUNNING)
    return row.group_key is not None and not is_current


def _look(tables: Tables, dialect: Dialect) -> sa.Select[Any]:
    jobs, workers = tables.jobs, tables.workers
    batch = dialect.rows({"id": JOB_ID})
    return (
        sa.select(*run_columns(tables))
        .select_from(batch)
        .join(jobs, jobs.c.id == batch.c.id)
        .outerjoin(workers, workers.c.id == jobs.c.worker_id)
    )


async def _dead_owners(rows: Iterable[Row]) -> frozenset[str]:
    owners = {
        row.worker_id: (row.host, row.pid, row.process_started)
        for row in rows
        if row.state == JobState.RUNNING and row.host is not None
    }
    return await known_dead(owners)
