"""Claims of jobs in groups: whose turn it is, is read and written under the groups' locks.

Two claims of one group cannot pass each other: the second one waits for the lock, and reads what the first has
committed. That also holds for a job whose row was committed after those behind it had begun to run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import assert_never

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.job import JobId, JobState
from jq_actors.protocol import RowView, Verdict, judge
from jq_actors.turns import Leave, Member, Park, Start, Wait, turn_of

from .bodies import Bodies
from .dialect import Dialect, encode_rows
from .grants import Claimed, grant
from .group_rows import GroupRow, GroupRows
from .group_views import GroupViews, SeenJob, Sight, Views
from .records import Claim, ClaimRequest, Instead
from .tables import BIGINT, JOB_ID, Tables, UtcDateTime
from .workers import Workers


class GroupClaims:
    """Decides over deliveries of jobs in groups."""

    def __init__(
        self, tables: Tables, dialect: Dialect, workers: Workers, rows: GroupRows, views: GroupViews, bodies: Bodies
    ) -> None:
        self._workers, self._rows, self._views, self._bodies = workers, rows, views, bodies
        self._grant_statement = _grant(tables, dialect)
        self._park_statement = _park(tables, dialect)

    async def write(
        self,
        connection: AsyncConnection,
        requests: Sequence[ClaimRequest],
        groups: Mapping[int, str],
        now: datetime,
        claimed: Claimed,
    ) -> None:
        """Answer those of ``requests`` that ask for their turn in ``groups`` (by run token).

        What is not answered is not what it was taken for, or has changed meanwhile: it is to be judged anew.
        """
        rows = await self._rows.lock(connection, groups.values(), now)
        views = await self._views.read(connection, rows, [request.job_id for request in requests])
        batch = _Batch(views, now, claimed)
        for request in requests:
            batch.decide(request, groups[request.run_token])
        await self._grant(connection, batch)
        await self._park(connection, batch)
        await self._rows.write(connection, batch.moved(), now)

    async def _grant(self, connection: AsyncConnection, batch: _Batch) -> None:
        others = [start.member.job_id for start in batch.starts.values() if start.is_instead]
        bodies = await self._bodies.of(connection, others)
        rows = [
            {
                "id": start.member.job_id,
                "dispatch": start.member.dispatch,
                "state": start.member.state,
                "run_token": token,
            }
            for token, start in batch.starts.items()
            if not start.is_instead or start.member.job_id in bodies
        ]
        if not rows:
            return
        parameters = {"batch": encode_rows(rows), "me": self._workers.my_id, "now": batch.now}
        granted = await connection.execute(self._grant_statement, parameters)
        for job_id, token, attempt, crashes in granted.all():
            start = batch.starts[token]
            instead = Instead(job_id, start.member.dispatch, bodies[job_id]) if start.is_instead else None
            batch.answer(token, Claim(Verdict.GRANT, attempt, crashes, instead=instead, group=start.sight.row.name))

    async def _park(self, connection: AsyncConnection, batch: _Batch) -> None:
        if not batch.parked:
            return
        rows = [
            {"id": job_id, "dispatch": parked.dispatch, "reason": parked.answer.reason}
            for job_id, parked in batch.parked.items()
        ]
        parameters = {"batch": encode_rows(rows), "now": batch.now}
        for job_id in (await connection.execute(self._park_statement, parameters)).scalars():
            for token in batch.parked[job_id].tokens:
                batch.answer(token, batch.parked[job_id].answer)


@dataclass(frozen=True, slots=True)
class _Start:
    member: Member
    sight: Sight
    is_instead: bool


@dataclass(frozen=True, slots=True)
class _Parked:
    dispatch: int
    answer: Claim
    tokens: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Batch:
    """What is decided over requests, one after the other: each sees what those before it were given."""

    views: Views
    now: datetime
    claimed: Claimed
    starts: dict[int, _Start] = field(default_factory=dict)
    """By run token."""
    parked: dict[JobId, _Parked] = field(default_factory=dict)

    def decide(self, request: ClaimRequest, group: str) -> None:
        sight, job = self.views.sights[group], self.views.jobs.get(request.job_id)
        if job is None or job.group != group or job.id in sight.running or not _wants_turn(job, request, self.now):
            return
        turn = turn_of(sight.view(), job.id, request.queue or job.queue, self.now)
        match turn:
            case Start(member):
                sight.start(member)
                self.starts[request.run_token] = _Start(member, sight, is_instead=member.job_id != job.id)
            case Wait(time, reason):
                self.answer(request.run_token, Claim(Verdict.HOLD, look_again=time, group=group, reason=reason))
            case Leave(reason) if request.can_leave:
                self.answer(request.run_token, Claim(Verdict.LEAVE, group=group, reason=reason))
            case Leave(reason) | Park(reason):
                self._park(request, job, Claim(Verdict.PARK, group=group, reason=reason))
            case _:
                assert_never(turn)

    def answer(self, token: int, answer: Claim) -> None:
        self.claimed.answers[token] = answer

    def moved(self) -> list[GroupRow]:
        """The rows of the groups that something was granted in, or that have come further."""
        granted = {token for token in self.starts if token in self.claimed.answers}
        holding = {self.starts[token].sight.row.name for token in granted}
        refused = {start.member.job_id for token, start in self.starts.items() if token not in granted}
        return [
            replace(sight.row, holders=tuple(sight.running - refused), next_position=sight.next_position)
            for name, sight in self.views.sights.items()
            if name in holding or sight.next_position != sight.row.next_position
        ]

    def _park(self, request: ClaimRequest, job: SeenJob, answer: Claim) -> None:
        if job.state is JobState.QUEUED:
            self.parked.setdefault(job.id, _Parked(job.dispatch, answer)).tokens.append(request.run_token)
        else:  # it waits already; or it is retrying, and a relay brings it back
            self.answer(request.run_token, answer)


def _wants_turn(job: SeenJob, request: ClaimRequest, now: datetime) -> bool:
    row = RowView(job.state, job.dispatch, grouped=True)
    return judge(row, request.dispatch, now, promised=request.promised) is Verdict.TURN


def _grant(tables: Tables, dialect: Dialect) -> sa.UpdateBase:
    c = tables.jobs.c
    b = dialect.rows({"id": JOB_ID, "dispatch": sa.Integer(), "state": sa.Text(), "run_token": BIGINT}).c
    this = (c.id == b.id, c.dispatch == b.dispatch, c.state == b.state)
    return grant(tables, b.run_token, *this, wake_at=None, parked_at=None)


def _park(tables: Tables, dialect: Dialect) -> sa.UpdateBase:
    c = tables.jobs.c
    b = dialect.rows({"id": JOB_ID, "dispatch": sa.Integer(), "reason": sa.Text()}).c
    return (
        sa.update(tables.jobs)
        .where(c.id == b.id, c.dispatch == b.dispatch, c.state == JobState.QUEUED.value)
        .values(
            state=JobState.WAITING.value,
            parked_at=sa.bindparam("now", type_=UtcDateTime),
            reason=b.reason,
            # Its delivery is acknowledged: nobody has a copy of it.
            published_at=None,
            publish_at=None,
            lane_owner=None,
        )
        .returning(c.id)
    )
