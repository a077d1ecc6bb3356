"""Groups under races: however many ask at once, on however many connections and in however many processes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from jq_actors.errors import GroupFullError, PositionTakenError
from jq_actors.job import JobId, JobState
from jq_actors.protocol import Verdict
from jq_actors.store.records import NewJob
from jq_actors.store.sql import SqlStore
from tests.support.waiting import eventually

from .grouped import sent, with_rule
from .stores import TABLE, World, job_ids, new_job
from .turns import asks, ends, runs

PROJECT = Path(__file__).parents[2]


class Runs:
    """Which jobs of a group run now, and in which order they began."""

    def __init__(self, jobs: Sequence[NewJob], seats: int) -> None:
        self.jobs, self.seats = jobs, seats
        self.now: set[JobId] = set()
        self.most = 0
        self.begun: list[JobId] = []

    def is_full(self) -> bool:
        """Whether as many run as may, or the last have begun."""
        return len(self.now) >= self.seats or len(self.begun) > len(self.jobs) - self.seats

    async def race(self, store: SqlStore, first: int) -> None:
        """Ask by one delivery after the other until every job has run."""
        n = first
        while len(self.begun) < len(self.jobs):
            n += 1
            request = asks(self.jobs[n * 7 % len(self.jobs)])
            answer = await store.claim(request)
            if answer.verdict is not Verdict.GRANT:
                await asyncio.sleep(0)
                continue
            job_id = request.job_id if answer.instead is None else answer.instead.job_id
            self.now.add(job_id)
            self.begun.append(job_id)
            self.most = max(self.most, len(self.now))
            await eventually(self.is_full, 60, "all seats to be taken")
            self.now.remove(job_id)
            await ends(store, request, answer)


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_racing_deliveries_keep_the_order_and_the_number(db: World, concurrency: int) -> None:
    stores = [await db.worker() for _ in range(3)]
    for store in stores:
        with_rule(store, concurrency=concurrency)
    seen = Runs(await sent(stores[0], 25), concurrency)
    racers = [seen.race(store, n) for n, store in enumerate(stores * 2)]
    await asyncio.wait_for(asyncio.gather(*racers), 100)
    assert seen.most == concurrency
    sent_ids = [job.id for job in seen.jobs]
    assert sorted(seen.begun) == sorted(sent_ids)
    if concurrency == 1:
        assert seen.begun == sent_ids


async def test_racing_processes_never_run_two_of_a_group(db: World) -> None:
    store = await db.worker()
    jobs = await sent(store, 30)
    ids = json.dumps([job.id for job in jobs])
    command = [sys.executable, "-m", "tests.conformance.group_process", db.url, TABLE, "g"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": PROJECT}
    processes = [await asyncio.to_thread(lambda: subprocess.Popen(command, **pipes)) for _ in range(3)]
    outputs = await asyncio.gather(*(asyncio.to_thread(process.communicate, ids, 100) for process in processes))
    assert [(output, process.returncode) for (output, _), process in zip(outputs, processes, strict=True)] == [
        ("", 0)
    ] * 3
    attempts = db.tables.attempts
    rows = await db.execute(sa.select(attempts).order_by(attempts.c.started_at))
    assert [row.job_id for row in rows] == [job.id for job in jobs]
    assert all(before.finished_at <= after.started_at for before, after in pairwise(rows))


async def test_job_that_is_committed_late_does_not_run_beside_those_behind_it(
    pg: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, store = [await pg.worker() for _ in range(2)]
    await sent(store)  # the group is known: its row stops nobody
    inserted, commit = asyncio.Event(), asyncio.Event()
    insert = slow._inserts.insert

    async def held_before_its_commit(*arguments: Any) -> Any:
        answer = await insert(*arguments)
        inserted.set()
        await commit.wait()
        return answer

    monkeypatch.setattr(slow._inserts, "insert", held_before_its_commit)
    sending = asyncio.ensure_future(sent(slow))
    await inserted.wait()
    [second] = await sent(store)
    zeroth = await runs(store, second)
    request = asks(second)
    answer = await store.claim(request)
    assert (answer.verdict, answer.instead) == (Verdict.GRANT, None)
    commit.set()
    [first] = await sending
    assert (await pg.the_row(first.id)).seq < (await pg.the_row(second.id)).seq
    assert (await slow.claim(asks(first))).verdict is Verdict.HOLD
    await ends(store, request, answer)
    assert await runs(slow, first) == first.id
    assert zeroth not in (first.id, second.id)


async def test_claims_of_a_group_do_not_pass_each_other(pg: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job comes to the front while the claim of the one that was there is not yet committed."""
    slow, store = [await pg.worker() for _ in range(2)]
    first, second = await sent(slow, 2)
    claimed, commit = asyncio.Event(), asyncio.Event()
    write = slow._claims.write
    monkeypatch.setattr(slow._claims, "write_plain", _nothing)  # the slow one claims under the lock

    async def held_before_its_commit(*arguments: Any, **options: Any) -> Any:
        answer = await write(*arguments, **options)
        claimed.set()
        await commit.wait()
        return answer

    monkeypatch.setattr(slow._claims, "write", held_before_its_commit)
    claim = asyncio.ensure_future(slow.claim(asks(first)))
    await claimed.wait()
    await pg.change(second.id, order_key=-1)
    other = asyncio.ensure_future(store.claim(asks(second)))
    await asyncio.wait([other], timeout=0.5)
    commit.set()
    assert ((await claim).verdict, (await other).verdict) == (Verdict.GRANT, Verdict.HOLD)


async def test_group_is_never_fuller_than_its_rule_allows(db: World) -> None:
    stores = [await db.worker() for _ in range(3)]
    for store in stores:
        with_rule(store, max_size=40)
    sendings = [store.insert([new_job(i, group="g")], publish_lease=None) for store in stores for i in job_ids(20)]
    answers = await asyncio.gather(*sendings, return_exceptions=True)
    assert sum(answer is None for answer in answers) == 40
    assert sum(isinstance(answer, GroupFullError) for answer in answers) == 20
    assert await stores[0].count_by_state() == {JobState.QUEUED: 40}


async def test_number_is_given_once(db: World) -> None:
    stores = [await db.worker() for _ in range(3)]
    sendings = [
        store.insert([replace(new_job(group="g"), position=n)], publish_lease=None)
        for store in stores
        for n in range(1, 11)
    ]
    answers = await asyncio.gather(*sendings, return_exceptions=True)
    assert sum(answer is None for answer in answers) == 10
    assert sum(isinstance(answer, PositionTakenError) for answer in answers) == 20


async def test_senders_and_workers_of_many_groups_do_not_stop_each_other(db: World) -> None:
    """Batches that lock the same groups in every order."""
    stores = [await db.worker() for _ in range(3)]
    names = [f"group {n}" for n in range(20)]

    async def send_and_run(store: SqlStore, turn: int) -> None:
        order = names[turn:] + names[:turn]
        jobs = [new_job(job_id, group=name) for job_id, name in zip(job_ids(20), order, strict=True)]
        await store.insert(jobs, publish_lease=timedelta(minutes=1))
        requests = [asks(job) for job in jobs]
        answers = await asyncio.gather(*(store.claim(request) for request in requests))
        granted = [(r, a) for r, a in zip(requests, answers, strict=True) if a.verdict is Verdict.GRANT]
        await asyncio.gather(*(ends(store, request, answer) for request, answer in granted))

    await asyncio.gather(*(send_and_run(store, 7 * n + m) for n, store in enumerate(stores) for m in range(4)))
    counts = await stores[0].count_by_state()
    assert counts.keys() <= {JobState.QUEUED, JobState.SUCCEEDED}
    assert sum(counts.values()) == 240


async def _nothing(*_arguments: Any) -> None:
    """Leave all to what comes next."""
