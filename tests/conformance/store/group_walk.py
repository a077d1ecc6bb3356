"""A walk through all that can happen to groups, in an order that dice decide."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import sqlalchemy as sa

from jq_actors.errors import PositionTakenError, StoreError
from jq_actors.model.claim_rules import Verdict
from jq_actors.model.group_rules import GroupRule, GroupRules, OnFailure
from jq_actors.model.job import JobId, JobState
from jq_actors.model.outcome import (
    Cancelled,
    Failed,
    Failure,
    Interrupted,
    Outcome,
    Retrying,
    Snoozed,
    Succeeded,
    Unhandled,
)
from jq_actors.store.records import ClaimRequest, JobFilter, NewJob, NextJob, Settlement
from jq_actors.store.sql import SqlStore
from tests.support.clock import FakeClock

from .stores import World, clock, job_ids, new_job
from .turns import FITS, SLOT, a_chain

T = TypeVar("T")
HOUR = timedelta(hours=1)
FAILURE = Failure(None, "ValueError: no")
OUTCOMES: Sequence[Outcome] = (
    *[Succeeded()] * 5,
    *[Retrying(FAILURE, HOUR)] * 2,
    Snoozed(HOUR),
    Failed(FAILURE),
    Cancelled("no"),
    Interrupted(),
    Unhandled("no actor"),
)
RULES = GroupRules(
    (
        GroupRule("two", concurrency=2),
        GroupRule("three", concurrency=3, overtake=True),
        GroupRule("over", overtake=True),
        GroupRule("stops", on_failure=OnFailure.PAUSE),
        GroupRule("ends", on_failure=OnFailure.CANCEL_REST, concurrency=2),
        GroupRule("numbers2", concurrency=2),
    )
)
GROUPS = ("one", "two", "three", "over", "stops", "ends", "numbers", "numbers2")


@dataclass(frozen=True, slots=True)
class Run:
    """A job that runs."""

    store: SqlStore
    job_id: JobId
    run_token: int
    group: str | None


class Walk:
    """One walk, by several workers."""

    def __init__(self, db: World, stores: list[SqlStore], seed: int) -> None:
        self.db, self.stores, self._dice = db, stores, FakeClock(seed=seed)
        self.runs: dict[JobId, Run] = {}
        self._waits = 0
        for store in stores:
            store.rules, store.fits = RULES, FITS
        self._steps: Sequence[Callable[[], Awaitable[object]]] = (
            [self.send] * 6
            + [self.claim] * 8
            + [self.end] * 8
            + [self.wake] * 2
            + [self.deliver_again, self.pause, self.resume, self.move, self.move, self.cancel, self.retry]
            + [self.lose_by_relay, self.lose_by_claim, self.offer, self.set_aside, self.look]
        )

    async def step(self) -> str:
        """Do one thing; returns which."""
        step = self._any(self._steps)
        done = await step()
        return f"{step.__name__}: {done}"

    async def drain(self) -> None:
        """Let everything run to its end."""
        for name in GROUPS:
            await self.stores[0].resume_group(name)
        while True:
            rows = await self._rows(final=False)
            if not rows:
                return
            before = [(row.id, row.state, row.attempt, row.dispatch) for row in rows]
            for run in [*self.runs.values()]:
                await self._end(run, Succeeded())
            await self._wake(rows)
            await self.offer()
            for row in await self._rows(JobState.QUEUED):
                await self._claim(self.stores[0], row)
            for name in GROUPS:
                await self.stores[0].resume_group(name)
            if [(row.id, row.state, row.attempt, row.dispatch) for row in await self._rows(final=False)] == before:
                await self._give_up_gaps(rows)

    # -- the steps

    async def send(self) -> object:
        name, count = self._any(GROUPS), 1 + self._throw(3)
        jobs = [self._new(name, job_id) for job_id in job_ids(count)]
        try:
            sent = await self._a_store().insert(jobs, publish_lease=self._any([None, HOUR]))
        except PositionTakenError as error:
            return error
        return name, len(jobs), [dispatch.job_id for dispatch in sent]

    async def claim(self) -> object:
        rows = await self._rows(JobState.QUEUED)
        return await self._claim(self._a_store(), self._any(rows)) if rows else None

    async def deliver_again(self) -> object:
        rows = await self._rows()
        if not rows:
            return None
        row = self._any(rows)
        dispatch = max(row.dispatch - self._throw(2), 1)
        request = ClaimRequest(row.id, dispatch, clock.random_bits(63), True, None, self._throw(2) == 0)
        return await self._ask(self._a_store(), request)

    async def end(self) -> object:
        if not self.runs:
            return None
        return await self._end(self._any([*self.runs.values()]), self._any(OUTCOMES))

    async def wake(self) -> object:
        rows = await self._rows(JobState.RETRYING, JobState.SCHEDULED)
        return await self._wake(rows[: self._throw(4)])

    async def pause(self) -> object:
        name = self._any(GROUPS)
        return name, await self._a_store().pause_group(name, "ops")

    async def resume(self) -> object:
        return [(name, await self._a_store().resume_group(name)) for name in GROUPS if self._throw(2)]

    async def move(self) -> object:
        rows = [row for row in await self._rows(final=False) if not row.group_key.startswith("numbers")]
        if not rows:
            return None
        row, to = self._any(rows), self._any([None, *GROUPS[:6]])
        try:
            return row.id, to, await self._a_store().move(row.id, to)
        except StoreError as error:
            return row.id, to, error

    async def cancel(self) -> object:
        if self._throw(3):
            return None
        name = self._any(GROUPS)
        return name, await self._a_store().cancel_group(name, "ops")

    async def retry(self) -> object:
        return await self._a_store().retry(JobFilter(group=self._any(GROUPS)), [], 1 + self._throw(3))

    async def lose_by_relay(self) -> object:
        lost, other = await self._lose()
        recovery = await other.recover(100)
        await lost.heartbeat({})
        return recovery

    async def lose_by_claim(self) -> object:
        lost, other = await self._lose()
        rows = [row for row in await self._rows(JobState.RUNNING) if row.worker_id == lost._workers.my_id]
        answers = [await self._ask(other, self._request(row)) for row in rows[: 1 + self._throw(3)]]
        recovery = await other.recover(100)
        await lost.heartbeat({})
        return answers, recovery

    async def offer(self) -> object:
        return await self._a_store().offer_unhandled(["send_mail"])

    async def set_aside(self) -> object:
        rows = await self._rows(JobState.QUEUED)
        if not rows or self._throw(3):
            return None
        row = self._any(rows)
        return await self._a_store().set_aside(row.id, row.dispatch, "cannot be decoded")

    async def look(self) -> object:
        """Of a relay, at groups that do not move: it finds nothing to mend."""
        return await self._a_store().mend_groups(clock.wall() + HOUR, 100)

    # -- what they have in common

    def _new(self, name: str, job_id: JobId) -> NewJob:
        due_in = self._any([timedelta()] * 4 + [HOUR])
        job = new_job(job_id, group=name, due_in=due_in, queue=self._any(["mail"] * 3 + ["heavy"]))
        return replace(job, position=1 + self._throw(12)) if name.startswith("numbers") else job

    def _request(self, row: Any) -> ClaimRequest:
        return ClaimRequest(row.id, row.dispatch, clock.random_bits(63), True, None)

    async def _claim(self, store: SqlStore, row: Any) -> object:
        return await self._ask(store, self._request(row))

    async def _ask(self, store: SqlStore, request: ClaimRequest) -> object:
        answer = await store.claim(request)
        if answer.verdict is Verdict.GRANT:
            job_id = request.job_id if answer.instead is None else answer.instead.job_id
            self._begin(Run(store, job_id, request.run_token, answer.group))
            return job_id, "granted"
        return request.job_id, answer.verdict.value

    def _begin(self, run: Run) -> None:
        assert run.job_id not in self.runs, f"{run.job_id} runs already"
        self.runs[run.job_id] = run

    async def _end(self, run: Run, outcome: Outcome) -> object:
        del self.runs[run.job_id]
        now = run.store.now()
        chain = a_chain(self._any([SLOT, SLOT, "another slot"])) if self._throw(4) else None
        settled = await run.store.settle(
            Settlement(run.job_id, run.run_token, outcome, now, now, True, run.group, chain)
        )
        assert settled.written
        self._follow(run.store, settled.next)
        return run.job_id, outcome, settled.next and settled.next.job_id

    def _follow(self, store: SqlStore, job: NextJob | None) -> None:
        if job is not None:
            self._begin(Run(store, job.job_id, job.run_token, job.group))

    async def _wake(self, rows: list[Any]) -> object:
        for row in rows:
            if row.wake_at is not None:
                await self.db.change(row.id, wake_at=clock.wall(), due_at=clock.wall())
        due = await self._a_store().take_due(100, HOUR)
        return due.count, [dispatch.job_id for dispatch in due.dispatches]

    async def _lose(self) -> tuple[SqlStore, SqlStore]:
        """A worker that is taken for lost, and another one."""
        lost, other = self._any([(a, b) for a in self.stores for b in self.stores if a is not b])
        workers = self.db.tables.workers
        lapsed = sa.update(workers).where(workers.c.id == lost._workers.my_id)
        await self.db.execute(lapsed.values(lease_until=clock.wall() - HOUR))
        self.runs = {job_id: run for job_id, run in self.runs.items() if run.store is not lost}
        return lost, other

    async def _give_up_gaps(self, rows: list[Any]) -> None:
        """Send the numbers that are still missing."""
        for name in {row.group_key for row in rows}:
            group = await self.stores[0].get_group(name)
            assert group is not None, name
            assert group.next_position is not None, f"{name} stands still"
            missing = replace(new_job(group=name), position=group.next_position)
            await self.stores[0].insert([missing], publish_lease=None)

    async def _rows(self, *states: JobState, final: bool | None = None) -> list[Any]:
        jobs = self.db.tables.jobs
        where = [jobs.c.state.in_(states)] if states else []
        where += [] if final is None else [jobs.c.final_state.is_not(None) if final else jobs.c.final_state.is_(None)]
        return await self.db.execute(sa.select(jobs).where(*where).order_by(jobs.c.seq))

    def _a_store(self) -> SqlStore:
        return self._any(self.stores)

    def _any(self, things: Sequence[T]) -> T:
        return things[self._throw(len(things))]

    def _throw(self, sides: int) -> int:
        return int(self._dice.random() * sides)
