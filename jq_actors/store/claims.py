"""Claims: the compare-and-set that makes a delivery an attempt.

The common case is one UPDATE for the whole batch. What it refuses is read and given to `protocol.judge`; what
that wants done (adopt, take over) is done in the same transaction, each again as a compare-and-set. Whoever
loses one is judged once more. Jobs of groups never take the short way: see `GroupClaims`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.job import JobState
from jq_actors.protocol import Owner, RowView, Verdict, judge, survives_crash

from .bodies import Bodies
from .dialect import Dialect, encode_rows
from .grants import Claimed, grant
from .group_claims import GroupClaims
from .inserts import Inserts
from .judging import COME_AGAIN, ToDo
from .losses import Losses, lost_run, run_columns
from .records import Claim, ClaimRequest, Instead, Leases, NewJob
from .tables import BIGINT, JOB_ID, Tables
from .workers import Workers, known_dead

ROUNDS = 5
"""How often a request is judged before it has to come again; a second round needs a race with somebody."""

Row = sa.Row[Any]


class Claims:
    """Decides over deliveries."""

    def __init__(
        self,
        tables: Tables,
        dialect: Dialect,
        leases: Leases,
        workers: Workers,
        inserts: Inserts,
        losses: Losses,
        groups: GroupClaims,
        bodies: Bodies,
    ) -> None:
        self._leases, self._workers, self._inserts, self._losses = leases, workers, inserts, losses
        self._groups, self._bodies = groups, bodies
        self._grant_statement = _grant(tables, dialect)
        self._take_over_statement = _take_over(tables, dialect)
        self._look_statement = _look(tables, dialect)
        self._granted_statement = _granted(tables, dialect)

    async def write_plain(
        self, connection: AsyncConnection, requests: Sequence[ClaimRequest], now: datetime, claimed: Claimed
    ) -> None:
        """Grant those of ``requests`` that a few statements grant, each of which is committed by itself.

        Of the others nobody knows yet what becomes of them: see `write`.
        """
        ordered = sorted(requests, key=lambda request: request.job_id)
        await self._grant(connection, [request for request in ordered if request.group is None], now, claimed)
        await self._groups.write_plain(connection, ordered, now, claimed)

    async def write(
        self, connection: AsyncConnection, requests: Sequence[ClaimRequest], now: datetime, *, again: bool
    ) -> Claimed:
        """Answer every one of ``requests`` for this process's worker.

        ``again``: an earlier try may have been committed; what it granted is granted.
        """
        claimed = Claimed()
        if again:
            await self._find_granted(connection, requests, claimed)
        # Two workers that claim the same jobs lock them in the same order, and so without a deadlock.
        open_ = sorted(claimed.unanswered(requests), key=lambda request: request.job_id)
        for round_ in range(ROUNDS):
            if round_:
                # A queued row was not granted: a relay may have taken this worker for lost, and removed it.
                await self._workers.hold(connection, now)
                await self._grant(connection, open_, now, claimed)
            else:
                await self._grant(connection, [request for request in open_ if request.group is None], now, claimed)
                await self._take_turns(connection, open_, _named_groups(open_), now, claimed)
            open_ = claimed.unanswered(open_)
            if open_:
                await self._judge(connection, open_, now, claimed)
                open_ = claimed.unanswered(open_)
            if not open_:
                return claimed
        for request in open_:
            claimed.answers[request.run_token] = Claim(Verdict.HOLD, look_again=COME_AGAIN)
        return claimed

    async def _find_granted(
        self, connection: AsyncConnection, requests: Sequence[ClaimRequest], claimed: Claimed
    ) -> None:
        # By its token alone: what was granted may be another job than that of the delivery.
        batch = {"batch": encode_rows([{"run_token": request.run_token} for request in requests])}
        own = {request.run_token: request.job_id for request in requests}
        rows = (await connection.execute(self._granted_statement, {**batch, "me": self._workers.my_id})).all()
        bodies = await self._bodies.of(connection, [row.id for row in rows if row.id != own[row.run_token]])
        for row in rows:
            instead = Instead(row.id, row.dispatch, bodies[row.id]) if row.id in bodies else None
            claimed.answers[row.run_token] = _granted_as(row, instead)

    async def _grant(
        self, connection: AsyncConnection, requests: Sequence[ClaimRequest], now: datetime, claimed: Claimed
    ) -> None:
        if not requests:
            return
        rows = [
            {"id": request.job_id, "dispatch": request.dispatch, "run_token": request.run_token}
            for request in _first_of_each(requests)
        ]
        parameters = {"batch": encode_rows(rows), "me": self._workers.my_id, "now": now}
        granted = await connection.execute(self._grant_statement, parameters)
        for _, token, attempt, crashes in granted.all():
            claimed.answers[token] = Claim(Verdict.GRANT, attempt, crashes)

    async def _judge(
        self, connection: AsyncConnection, requests: Sequence[ClaimRequest], now: datetime, claimed: Claimed
    ) -> None:
        batch = encode_rows([{"id": job_id} for job_id in {request.job_id for request in requests}])
        rows = {row.id: row for row in await connection.execute(self._look_statement, {"batch": batch})}
        dead = await _dead_owners(rows.values())
        todo = ToDo()
        for request in requests:
            row = rows.get(request.job_id)
            if row is not None and row.state == JobState.RUNNING and self._workers.is_me(row.worker_id):
                claimed.answers[request.run_token] = self._own(row, request)
                continue
            view = None if row is None else self._view(row, dead)
            verdict = judge(view, request.dispatch, now, promised=request.promised)
            answer = todo.answer(verdict, request, row, view, now)
            if answer is not None:
                claimed.answers[request.run_token] = answer
        if todo.adopt:
            await self._adopt(connection, list(todo.adopt.values()), now, claimed)
        if todo.take_over:
            await self._take_over(connection, todo.take_over, rows, now, claimed)
        await self._take_turns(connection, requests, todo.groups, now, claimed)

    async def _take_turns(
        self,
        connection: AsyncConnection,
        requests: Sequence[ClaimRequest],
        groups: Mapping[int, str],
        now: datetime,
        claimed: Claimed,
    ) -> None:
        if groups:
            asking = [request for request in requests if request.run_token in groups]
            await self._groups.write(connection, asking, groups, now, claimed)

    def _view(self, row: Row, dead: frozenset[str]) -> RowView:
        owner = None
        if row.state == JobState.RUNNING and row.lease_until is not None:
            lease_until = self._workers.lease_end(row.lease_until)
            owner = Owner(row.worker_id, lease_until, known_dead=row.worker_id in dead)
        return RowView(JobState(row.state), row.dispatch, owner, grouped=row.group_key is not None)

    def _own(self, row: Row, request: ClaimRequest) -> Claim:
        if row.run_token == request.run_token:  # granted by a try whose answer was lost
            return _granted_as(row, None)
        # Another delivery of the job runs in this very process, whatever became of its lease; who asks knows.
        return Claim(Verdict.HOLD, look_again=self._leases.worker, own_token=row.run_token)

    async def _adopt(
        self, connection: AsyncConnection, requests: Sequence[ClaimRequest], now: datetime, claimed: Claimed
    ) -> None:
        await self._workers.hold(connection, now)
        made = await self._inserts.adopt(connection, requests, self._workers.my_id, now)
        for request in requests:
            if request.job_id in made and _adopted(request).group is None:
                claimed.answers[request.run_token] = Claim(Verdict.GRANT, attempt=1)

    async def _take_over(
        self,
        connection: AsyncConnection,
        requests: Mapping[str, ClaimRequest],
        rows: Mapping[str, Row],
        now: datetime,
        claimed: Claimed,
    ) -> None:
        # A job of a group, too: it has its turn already.
        runs = {job_id: lost_run(rows[job_id]) for job_id in requests}
        alive = [run for run in runs.values() if survives_crash(run.crashes, self._leases.max_crashes)]
        batch = [
            {"id": run.job_id, "lost_token": run.run_token, "run_token": requests[run.job_id].run_token}
            for run in alive
        ]
        parameters = {"batch": encode_rows(batch), "me": self._workers.my_id, "now": now}
        granted = (await connection.execute(self._take_over_statement, parameters)).all() if alive else []
        for job_id, token, attempt, crashes in granted:
            claimed.answers[token] = Claim(Verdict.GRANT, attempt, crashes, group=rows[job_id].group_key)
        taken = [runs[job_id] for job_id, *_ in granted]
        await self._losses.record(connection, taken, now)
        claimed.taken += taken
        doomed = [run for run in runs.values() if run not in alive]
        failed, events = await self._losses.fail(connection, doomed, now)
        claimed.answers |= {requests[run.job_id].run_token: Claim(Verdict.DROP_FINAL) for run in failed}
        claimed.failed += failed
        claimed.of_groups += events


def _grant(tables: Tables, dialect: Dialect) -> sa.UpdateBase:
    c = tables.jobs.c
    b = dialect.rows({"id": JOB_ID, "dispatch": sa.Integer(), "run_token": BIGINT}).c
    this = (c.id == b.id, c.dispatch == b.dispatch, c.state == JobState.QUEUED.value)
    return grant(tables, b.run_token, *this, c.group_key.is_(None))


def _take_over(tables: Tables, dialect: Dialect) -> sa.UpdateBase:
    c = tables.jobs.c
    b = dialect.rows({"id": JOB_ID, "lost_token": BIGINT, "run_token": BIGINT}).c
    this = (c.id == b.id, c.run_token == b.lost_token, c.state == JobState.RUNNING.value)
    return grant(tables, b.run_token, *this, crashes=c.crashes + 1)


def _look(tables: Tables, dialect: Dialect) -> sa.Select[Any]:
    jobs, workers = tables.jobs, tables.workers
    batch = dialect.rows({"id": JOB_ID})
    also = (jobs.c.state, jobs.c.dispatch, workers.c.lease_until, workers.c.process_started)
    return (
        sa.select(*run_columns(tables), *also)
        .select_from(batch)
        .join(jobs, jobs.c.id == batch.c.id)
        .outerjoin(workers, workers.c.id == jobs.c.worker_id)
    )


def _granted(tables: Tables, dialect: Dialect) -> sa.Select[Any]:
    c, b = tables.jobs.c, dialect.rows({"run_token": BIGINT}).c
    # By the index of unfinished rows: an answer is lost seldom.
    mine = (c.state == JobState.RUNNING.value, c.worker_id == sa.bindparam("me", type_=sa.Text))
    return sa.select(c.id, c.group_key, c.dispatch, c.run_token, c.attempt, c.crashes).where(
        c.final_state.is_(None), *mine, c.run_token.in_(sa.select(b.run_token))
    )


def _granted_as(row: Row, instead: Instead | None) -> Claim:
    return Claim(Verdict.GRANT, row.attempt, row.crashes, instead=instead, group=row.group_key)


def _named_groups(requests: Sequence[ClaimRequest]) -> dict[int, str]:
    return {request.run_token: request.group for request in requests if request.group is not None}


def _adopted(request: ClaimRequest) -> NewJob:
    assert request.adopt is not None, "only what was not promised is adopted"
    return request.adopt


def _first_of_each(requests: Sequence[ClaimRequest]) -> Iterable[ClaimRequest]:
    # An UPDATE joined with two rows for one job would take any of them.
    first: dict[tuple[str, int], ClaimRequest] = {}
    for request in requests:
        first.setdefault((request.job_id, request.dispatch), request)
    return first.values()


async def _dead_owners(rows: Iterable[Row]) -> frozenset[str]:
    owners = {
        row.worker_id: (row.host, row.pid, row.process_started)
        for row in rows
        if row.state == JobState.RUNNING and row.host is not None
    }
    return await known_dead(owners)
