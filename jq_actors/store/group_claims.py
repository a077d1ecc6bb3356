"""Claims of jobs in groups: two claims of one group cannot pass each other.

Where a delivery's own job may start, that is read without a lock and written if the group's row is still the same
(`GroupGrants`). Else it is read and written under the group's lock: the second one waits for it, and reads what the
first has committed. Both hold also for a job whose row was committed after those behind it had begun to run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import assert_never

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.job import JobId, JobState
from jq_actors.protocol import RowView, Verdict, judge
from jq_actors.turns import Leave, Member, Park, Start, Turn, Wait, turn_of

from .bodies import Bodies
from .dialect import Dialect, encode_rows
from .grants import Claimed
from .group_grants import Granted, GroupGrants, GroupStart
from .group_rows import GroupRow, GroupRows
from .group_views import GroupViews, SeenJob, Views
from .records import Claim, ClaimRequest, Instead
from .tables import JOB_ID, Tables, UtcDateTime


class GroupClaims:
    """Decides over deliveries of jobs in groups."""

    def __init__(
        self, tables: Tables, dialect: Dialect, grants: GroupGrants, rows: GroupRows, views: GroupViews, bodies: Bodies
    ) -> None:
        self._grants, self._rows, self._views, self._bodies = grants, rows, views, bodies
        self._park_statement = _park(tables, dialect)

    async def write_plain(
        self, connection: AsyncConnection, requests: Sequence[ClaimRequest], now: datetime, claimed: Claimed
    ) -> None:
        """Grant those of ``requests``, which name their groups, whose own job's turn it is: by a look and a change.

        Nothing is locked in between; the change is refused to groups whose rows are not what the look saw. Whatever is
        no grant, or needs more to be known or done, is left to `write`, and so is what comes behind it in its group.
        Only on databases that `Dialect.nests_writes` is true of.
        """
        asking: defaultdict[str, list[ClaimRequest]] = defaultdict(list)
        for request in requests:
            if request.group is not None:
                asking[request.group].append(request)
        if not asking:
            return
        batch = _Batch(await self._views.look(connection, asking), now, claimed)
        for name, of_group in asking.items():
            if name in batch.views.sights:
                batch.start_own(of_group, name)
        batch.grant(await self._grants.write(connection, batch.starts, now), {})

    async def write(
        self,
        connection: AsyncConnection,
        requests: Sequence[ClaimRequest],
        groups: Mapping[int, str],
        now: datetime,
        claimed: Claimed,
    ) -> None:
        """Answer those of ``requests`` that ask for their turn in ``groups`` (by run token), under the groups' locks.

        What is not answered is not what it was taken for, or has changed meanwhile: it is to be judged anew.
        """
        rows = await self._rows.lock(connection, groups.values(), now)
        views = await self._views.read(connection, rows, [request.job_id for request in requests])
        batch = _Batch(views, now, claimed)
        for request in requests:
            batch.decide(request, groups[request.run_token])
        await self._grant(connection, batch)
        await self._park(connection, batch)
        await self._rows.write(connection, batch.come_further(), now)

    async def _grant(self, connection: AsyncConnection, batch: _Batch) -> None:
        others = [start.member.job_id for start in batch.starts.values() if start.is_instead]
        bodies = await self._bodies.of(connection, others)
        starts = {
            token: start
            for token, start in batch.starts.items()
            if not start.is_instead or start.member.job_id in bodies
        }
        batch.grant(await self._grants.write(connection, starts, batch.now), bodies)

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
    starts: dict[int, GroupStart] = field(default_factory=dict)
    """By run token."""
    parked: dict[JobId, _Parked] = field(default_factory=dict)

    def start_own(self, requests: Sequence[ClaimRequest], group: str) -> None:
        """Let the jobs of ``requests`` start, up to the first whose turn it is not."""
        for request in requests:
            job = self._asking(request, group)
            turn = None if job is None else self._turn(job, request, group)
            if not isinstance(turn, Start) or turn.member.job_id != request.job_id:
                return
            self._start(request, turn.member, group)

    def decide(self, request: ClaimRequest, group: str) -> None:
        job = self._asking(request, group)
        if job is None:
            return
        turn = self._turn(job, request, group)
        match turn:
            case Start(member):
                self._start(request, member, group)
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

    def grant(self, granted: Mapping[int, Granted], bodies: Mapping[str, bytes]) -> None:
        """Those were granted, by run token; ``bodies``: of the jobs that run instead of a delivery's own."""
        for token, run in granted.items():
            start = self.starts[token]
            instead = Instead(run.job_id, start.member.dispatch, bodies[run.job_id]) if start.is_instead else None
            group = start.sight.row.name
            self.answer(token, Claim(Verdict.GRANT, run.attempt, run.crashes, instead=instead, group=group))

    def come_further(self) -> list[GroupRow]:
        """The rows of numbered groups that have come further, and have not been told by a grant."""
        told = {start.sight.row.name for token, start in self.starts.items() if token in self.claimed.answers}
        return [
            replace(sight.row, next_position=sight.next_position)
            for name, sight in self.views.sights.items()
            if name not in told and sight.next_position != sight.row.next_position
        ]

    def _asking(self, request: ClaimRequest, group: str) -> SeenJob | None:
        """Its job, if it is there to be started."""
        job = self.views.jobs.get(request.job_id)
        if job is None or job.group != group or job.id in self.views.sights[group].running:
            return None
        return job if _wants_turn(job, request, self.now) else None

    def _turn(self, job: SeenJob, request: ClaimRequest, group: str) -> Turn:
        return turn_of(self.views.sights[group].view(), job.id, request.queue or job.queue, self.now)

    def _start(self, request: ClaimRequest, member: Member, group: str) -> None:
        sight = self.views.sights[group]
        sight.start(member)
        self.starts[request.run_token] = GroupStart(member, sight, is_instead=member.job_id != request.job_id)

    def _park(self, request: ClaimRequest, job: SeenJob, answer: Claim) -> None:
        if job.state is JobState.QUEUED:
            self.parked.setdefault(job.id, _Parked(job.dispatch, answer)).tokens.append(request.run_token)
        else:  # it waits already; or it is retrying, and a relay brings it back
            self.answer(request.run_token, answer)


def _wants_turn(job: SeenJob, request: ClaimRequest, now: datetime) -> bool:
    row = RowView(job.state, job.dispatch, grouped=True)
    return judge(row, request.dispatch, now, promised=request.promised) is Verdict.TURN


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
