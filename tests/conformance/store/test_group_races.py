"""Groups under races: however many do whatever at once, on however many connections and in however many processes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from jq_actors.errors import GroupFullError, PositionTakenError, StoreError
from jq_actors.model.claim_rules import Verdict
from jq_actors.model.job import FINAL_STATES, JobId, JobState
from jq_actors.model.outcome import Failure, Interrupted, Outcome, Retrying, Succeeded
from jq_actors.store.database.dialect import Fault
from jq_actors.store.records import JobFilter, NewJob
from jq_actors.store.sql import SqlStore
from tests.support.waiting import eventually

from .grouped import sent, with_rule
from .stores import TABLE, World, clock, job_ids, new_job
from .turns import FITS, a_chain, asks, ends, goes_on

PROJECT = Path(__file__).parents[3]
FAILURE = Failure(None, "ValueError: no")


class Runs:
    """Which jobs of a group run now, and in which order they began."""

    def __init__(self, db: World, jobs: Sequence[NewJob], places: int) -> None:
        self.db, self.jobs, self.places = db, jobs, places
        self.now: set[JobId] = set()
        self.most = 0
        self.begun: list[JobId] = []

    def is_full(self) -> bool:
        """Whether as many run as may, or the last have begun."""
        return len(self.now) >= self.places or len(self.begun) > len(self.jobs) - self.places

    async def race(self, store: SqlStore) -> None:
        """Run what is queued, and what follows it, until every job has run."""
        while len(self.begun) < len(self.jobs):
            for job in self.jobs:
                row = await self.db.the_row(job.id)
                if row.state == JobState.QUEUED:
                    await self._live(store, job, row.dispatch)

    async def _live(self, store: SqlStore, job: NewJob, dispatch: int) -> None:
        request = asks(job, dispatch=dispatch)
        answer = await store.claim(request)
        if answer.verdict is not Verdict.GRANT:
            return
        await self._run(request.job_id)
        settled = await ends(store, request, answer, chain=a_chain())
        while settled.next is not None:
            following = settled.next
            await self._run(following.job_id)
            settled = await goes_on(store, following, chain=a_chain() if len(self.begun) % 4 else None)

    async def _run(self, job_id: JobId) -> None:
        self.now.add(job_id)
        self.begun.append(job_id)
        self.most = max(self.most, len(self.now))
        await eventually(self.is_full, 60, "all places to be taken")
        self.now.remove(job_id)


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_racing_workers_keep_the_order_and_the_number(led: World, concurrency: int) -> None:
    stores = [await led.worker() for _ in range(3)]
    for store in stores:
        store.fits = FITS
        with_rule(store, concurrency=concurrency)
    seen = Runs(led, await sent(stores[0], 25), concurrency)
    await asyncio.wait_for(asyncio.gather(*(seen.race(store) for store in stores)), 100)
    assert seen.most == concurrency
    sent_ids = [job.id for job in seen.jobs]
    assert sorted(seen.begun) == sorted(sent_ids)
    if concurrency == 1:
        assert seen.begun == sent_ids


async def test_racing_processes_never_run_two_of_a_group(led: World) -> None:
    store = await led.worker()
    jobs = {name: await sent(store, 12, name) for name in ("a", "b", "c")}
    ids = json.dumps([job.id for of_group in jobs.values() for job in of_group])
    command = [sys.executable, "-m", "tests.conformance.store.group_process", led.url, TABLE]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": PROJECT}
    processes = [await asyncio.to_thread(lambda: subprocess.Popen(command, **pipes)) for _ in range(3)]
    outputs = await asyncio.gather(*(asyncio.to_thread(process.communicate, ids, 100) for process in processes))
    ended = [(output, process.returncode) for (output, _), process in zip(outputs, processes, strict=True)]
    assert ended == [("", 0)] * 3
    attempts = led.tables.attempts
    of_group: defaultdict[str, list[sa.Row[Any]]] = defaultdict(list)
    names = {job.id: name for name, some in jobs.items() for job in some}
    for row in await led.execute(sa.select(attempts).order_by(attempts.c.started_at)):
        of_group[names[row.job_id]].append(row)
    for name, rows in of_group.items():
        assert [row.job_id for row in rows] == [job.id for job in jobs[name]]
        assert all(before.finished_at <= after.started_at for before, after in pairwise(rows))


async def test_group_is_never_fuller_than_its_rule_allows(led: World) -> None:
    stores = [await led.worker() for _ in range(3)]
    for store in stores:
        with_rule(store, max_size=40)
    sendings = [store.insert([new_job(i, group="g")], publish_lease=None) for store in stores for i in job_ids(20)]
    answers = await asyncio.gather(*sendings, return_exceptions=True)
    assert sum(isinstance(answer, list) for answer in answers) == 40
    assert sum(isinstance(answer, GroupFullError) for answer in answers) == 20
    assert await stores[0].count_by_state() == {JobState.QUEUED: 1, JobState.WAITING: 39}


async def test_number_is_given_once(led: World) -> None:
    stores = [await led.worker() for _ in range(3)]
    sendings = [
        store.insert([replace(new_job(group="g"), position=n)], publish_lease=None)
        for store in stores
        for n in range(1, 11)
    ]
    answers = await asyncio.gather(*sendings, return_exceptions=True)
    assert sum(isinstance(answer, list) for answer in answers) == 10
    assert sum(isinstance(answer, PositionTakenError) for answer in answers) == 20
    assert await stores[0].count_by_state() == {JobState.QUEUED: 1, JobState.WAITING: 9}


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_senders_of_one_group_admit_as_many_as_there_are_places(led: World, concurrency: int) -> None:
    stores = [await led.worker() for _ in range(3)]
    for store in stores:
        with_rule(store, concurrency=concurrency)
    sendings = [store.insert([new_job(i, group="g")], publish_lease=None) for store in stores for i in job_ids(10)]
    await asyncio.gather(*sendings)
    assert (await stores[0].count_by_state())[JobState.QUEUED] == concurrency


# -- everything at once


class Conflicts:
    """Counts transactions that the server broke off because they waited for each other in a circle."""

    def __init__(self) -> None:
        self.count = 0

    @contextmanager
    def of(self, stores: Sequence[SqlStore], monkeypatch: pytest.MonkeyPatch) -> Iterator[Conflicts]:
        for store in stores:
            monkeypatch.setattr(store._db.dialect, "fault_of", self._counting(store._db.dialect.fault_of))
        yield self

    def _counting(self, fault_of: Any) -> Any:
        def counting(error: Any) -> Fault:
            fault: Fault = fault_of(error)
            self.count += fault is Fault.CONFLICT
            return fault

        return counting


class Turmoil:
    """Senders, workers, a relay and an operator of the same groups."""

    def __init__(self, db: World, names: Sequence[str]) -> None:
        self.db, self.names = db, names
        self.is_over = False

    async def send(self, store: SqlStore, turns: int) -> None:
        """Batches that touch the groups in every order."""
        for turn in range(turns):
            shift = turn * 7 % len(self.names)
            order = [*self.names[shift:], *self.names[:shift]]
            jobs = [new_job(job_id, group=name) for job_id, name in zip(job_ids(len(order)), order, strict=True)]
            await store.insert(jobs, publish_lease=timedelta(minutes=1))

    async def work(self, store: SqlStore) -> None:
        """Claim whatever is queued, all at once, and end it in one way or another."""
        while not self.is_over:
            jobs = self.db.tables.jobs
            rows = await self.db.execute(sa.select(jobs).where(jobs.c.state == "queued").limit(60))
            await asyncio.gather(*(self._live(store, row, n) for n, row in enumerate(rows)))
            await asyncio.sleep(0)

    async def _live(self, store: SqlStore, row: sa.Row[Any], n: int) -> None:
        request = asks(new_job(row.id), dispatch=row.dispatch)
        answer = await store.claim(request)
        if answer.verdict is not Verdict.GRANT:
            return
        outcomes: list[Outcome] = [Succeeded(), Succeeded(), Retrying(FAILURE, timedelta()), Interrupted()]
        outcome = outcomes[n % 4]
        settled = await ends(store, request, answer, outcome, chain=a_chain())
        while settled.next is not None:
            settled = await goes_on(store, settled.next, chain=a_chain())

    async def operate(self, store: SqlStore, turns: int) -> None:
        """Pause, resume, move, cancel and retry."""
        for turn in range(turns):
            name, other = self.names[turn % len(self.names)], self.names[-1 - turn % len(self.names)]
            await store.pause_group(name, "stop")
            await asyncio.gather(*(self._move(store, job.id, other) for job in await store.first_of_group(name, 2)))
            if turn % 4 == 0:
                await store.cancel_group(other, "no more")
                await store.retry(JobFilter(group=other), [], 2)
            await store.resume_group(name)

    async def _move(self, store: SqlStore, job_id: JobId, to: str) -> None:
        try:
            await store.move(job_id, to)
            await store.move(job_id, None)
        except StoreError:
            pass  # it was claimed just now, or has ended

    async def look(self, store: SqlStore) -> None:
        """What a relay does."""
        while not self.is_over:
            await store.take_due(100, timedelta())
            await store.take_unpublished(None, 100, timedelta())
            await store.recover(100)
            await store.mend_groups(clock.wall() + timedelta(minutes=1), 100)
            await asyncio.sleep(0.01)


async def test_senders_workers_relays_and_operators_do_not_stop_each_other(
    led: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = [await led.worker() for _ in range(5)]
    for store in stores:
        store.fits = FITS
        with_rule(store, concurrency=2)
    turmoil = Turmoil(led, [f"group {n}" for n in range(12)])
    with Conflicts().of(stores, monkeypatch) as conflicts:
        going_on = asyncio.gather(
            *(turmoil.work(store) for store in stores[:2]), turmoil.look(stores[2]), return_exceptions=False
        )
        await asyncio.gather(turmoil.send(stores[3], 6), turmoil.send(stores[4], 6), turmoil.operate(stores[3], 24))

        async def all_have_ended() -> bool:
            return {*await stores[4].count_by_state()} <= FINAL_STATES

        await eventually(all_have_ended, 60, "all jobs to end")
        turmoil.is_over = True
        await going_on
    assert conflicts.count == 0
    assert sum((await stores[0].count_by_state()).values()) == 2 * 6 * 12
