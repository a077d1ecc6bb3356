"""Claims: the compare-and-set that makes a delivery an attempt.

The common case is one UPDATE for the whole batch. What it refuses is read and given to `protocol.judge`; what
that wants done (adopt, take over) is done in the same transaction, each again as a compare-and-set. Whoever
loses one is judged once more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, assert_never

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.events import Event
from jq_actors.job import JobState
from jq_actors.protocol import Owner, RowView, Verdict, judge, survives_crash

from .dialect import Dialect, encode_rows
from .inserts import Inserts
from .losses import Losses, LostRun, events_of, lost_run, run_columns
from .port import Claim, ClaimRequest, Leases
from .tables import BIGINT, JOB_ID, Tables, UtcDateTime
from .workers import Workers, held_worker, known_dead

ROUNDS = 5
"""How often a request is judged before it has to come again; a second round needs a race with somebody."""
COME_AGAIN = timedelta(milliseconds=200)
"""When a request that lost every race comes again."""

Row = sa.Row[Any]


@dataclass(slots=True)
class Claimed:
    """What became of a batch. Its events are to be told when it is committed."""

    answers: dict[int, Claim] = field(default_factory=dict)
    """By run token."""
    taken: list[LostRun] = field(default_factory=list)
    """Runs of lost workers whose jobs were taken over."""
    failed: list[LostRun] = field(default_factory=list)
    """Those that were one too many."""

    @property
    def events(self) -> list[Event]:
        """What to tell."""
        return events_of(self.taken, self.failed)

    def unanswered(self, requests: Sequence[ClaimRequest]) -> list[ClaimRequest]:
        """Those of ``requests`` that have no answer yet."""
        return [request for request in requests if request.run_token not in self.answers]


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
    ) -> None:
        self._leases, self._workers, self._inserts, self._losses = leases, workers, inserts, losses
        self._grant_statement = _grant(tables, dialect)
        self._take_over_statement = _take_over(tables, dialect)
        self._look_statement = _look(tables, dialect)

    async def write(self, connection: AsyncConnection, requests: Sequence[ClaimRequest], now: datetime) -> Claimed:
        """Answer every one of ``requests`` for this process's worker."""
        claimed = Claimed()
        # Two workers that claim the same jobs lock them in the same order, and so without a deadlock.
        open_ = sorted(requests, key=lambda request: request.job_id)
        for round_ in range(ROUNDS):
            if round_:
                # A queued row was not granted: a relay may have taken this worker for lost, and removed it.
                await self._workers.hold(connection, now)
            await self._grant(connection, open_, now, claimed)
            open_ = claimed.unanswered(open_)
            if open_:
                await self._judge(connection, open_, now, claimed)
                open_ = claimed.unanswered(open_)
            if not open_:
                return claimed
        for request in open_:
            claimed.answers[request.run_token] = Claim(Verdict.HOLD, look_again=COME_AGAIN)
        return claimed

    async def _grant(
        self, connection: AsyncConnection, requests: Sequence[ClaimRequest], now: datetime, claimed: Claimed
    ) -> None:
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
        adopted: dict[str, ClaimRequest] = {}
        taken_over: dict[str, ClaimRequest] = {}
        for request in requests:
            row = rows.get(request.job_id)
            if row is not None and row.state == JobState.RUNNING and self._workers.is_me(row.worker_id):
                claimed.answers[request.run_token] = self._own(row, request)
                continue
            view = None if row is None else self._view(row, dead)
            verdict = judge(view, request.dispatch, now, promised=request.promised)
            match verdict:
                case Verdict.DROP_FINAL | Verdict.DROP_STALE:
                    claimed.answers[request.run_token] = Claim(verdict)
                case Verdict.HOLD:
                    claimed.answers[request.run_token] = Claim(verdict, look_again=_lease_left(view, now))
                case Verdict.ADOPT:
                    adopted.setdefault(request.job_id, request)
                case Verdict.TAKE_OVER:
                    taken_over.setdefault(request.job_id, request)
                case Verdict.GRANT:
                    pass  # it changed between the UPDATE and this look: the next round grants it
                case _:
                    assert_never(verdict)
        if adopted:
            await self._adopt(connection, list(adopted.values()), now, claimed)
        if taken_over:
            runs = {job_id: lost_run(rows[job_id]) for job_id in taken_over}
            await self._take_over(connection, taken_over, runs, now, claimed)

    def _view(self, row: Row, dead: frozenset[str]) -> RowView:
        owner = None
        if row.state == JobState.RUNNING and row.lease_until is not None:
            lease_until = self._workers.lease_end(row.lease_until)
            owner = Owner(row.worker_id, lease_until, known_dead=row.worker_id in dead)
        return RowView(JobState(row.state), row.dispatch, owner)

    def _own(self, row: Row, request: ClaimRequest) -> Claim:
        if row.run_token == request.run_token:  # granted by a try whose answer was lost
            return Claim(Verdict.GRANT, row.attempt, row.crashes)
        # Another delivery of the job runs in this very process, whatever became of its lease; who asks knows.
        return Claim(Verdict.HOLD, look_again=self._leases.worker, own_token=row.run_token)

    async def _adopt(
        self, connection: AsyncConnection, requests: Sequence[ClaimRequest], now: datetime, claimed: Claimed
    ) -> None:
        await self._workers.hold(connection, now)
        made = await self._inserts.adopt(connection, requests, self._workers.my_id, now)
        for request in requests:
            if request.job_id in made:
                claimed.answers[request.run_token] = Claim(Verdict.GRANT, attempt=1)

    async def _take_over(
        self,
        connection: AsyncConnection,
        requests: Mapping[str, ClaimRequest],
        runs: Mapping[str, LostRun],
        now: datetime,
        claimed: Claimed,
    ) -> None:
        alive = [run for run in runs.values() if survives_crash(run.crashes, self._leases.max_crashes)]
        batch = [
            {"id": run.job_id, "lost_token": run.run_token, "run_token": requests[run.job_id].run_token}
            for run in alive
        ]
        parameters = {"batch": encode_rows(batch), "me": self._workers.my_id, "now": now}
        rows = (await connection.execute(self._take_over_statement, parameters)).all() if alive else []
        for _, token, attempt, crashes in rows:
            claimed.answers[token] = Claim(Verdict.GRANT, attempt, crashes)
        taken = [runs[job_id] for job_id, *_ in rows]
        await self._losses.record(connection, taken, now)
        claimed.taken += taken
        doomed = [run for run in runs.values() if run not in alive]
        for run in await self._losses.fail(connection, doomed, now):
            claimed.answers[requests[run.job_id].run_token] = Claim(Verdict.DROP_FINAL)
            claimed.failed.append(run)


def _grant(tables: Tables, dialect: Dialect) -> sa.UpdateBase:
    c = tables.jobs.c
    b = dialect.rows({"id": JOB_ID, "dispatch": sa.Integer(), "run_token": BIGINT}).c
    this = (c.id == b.id, c.dispatch == b.dispatch, c.state == JobState.QUEUED.value)
    return _run(tables, b.run_token, *this)


def _take_over(tables: Tables, dialect: Dialect) -> sa.UpdateBase:
    c = tables.jobs.c
    b = dialect.rows({"id": JOB_ID, "lost_token": BIGINT, "run_token": BIGINT}).c
    this = (c.id == b.id, c.run_token == b.lost_token, c.state == JobState.RUNNING.value)
    return _run(tables, b.run_token, *this, crashes=c.crashes + 1)


def _run(
    tables: Tables,
    run_token: sa.ColumnElement[int],
    *where: sa.ColumnElement[bool],
    **also: sa.ColumnElement[Any],
) -> sa.UpdateBase:
    c = tables.jobs.c
    now = sa.bindparam("now", type_=UtcDateTime)
    me = held_worker(tables).cte("me")
    return (
        sa.update(tables.jobs)
        .where(*where)
        .values(
            state=JobState.RUNNING.value,
            run_token=run_token,
            worker_id=me.c.id,
            attempt=c.attempt + 1,
            started_at=now,
            # Unchanged where it was marked before, so that the update stays a HOT one.
            published_at=sa.func.coalesce(c.published_at, now),
            publish_at=None,
            reason=None,
            **also,
        )
        .returning(c.id, c.run_token, c.attempt, c.crashes)
    )


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


def _lease_left(view: RowView | None, now: datetime) -> timedelta:
    assert view is not None
    assert view.owner is not None
    return max(view.owner.lease_until - now, COME_AGAIN)
