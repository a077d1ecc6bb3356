"""Results: how large they may be, and how soon who waits for one has it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jq_actors import Fail, actor, jobs
from jq_actors.errors import JobFailedError, ResultTimeoutError
from jq_actors.events import JobFinished
from jq_actors.jobs import results as job_results
from tests.support.application import Application

FOR_EVER = 1e6


def test_a_result_that_is_too_large_fails_its_job_and_nothing_else(app_with_rows: Application) -> None:
    app, runs = app_with_rows, list[int]()

    @actor
    async def returns(length: int) -> str:
        runs.append(length)
        return "x" * length

    with app.worker():
        large, small = returns.send(2 << 20), returns.send(1 << 19)
        assert jobs.result(small.job_id, timeout=20) == "x" * (1 << 19)
        with pytest.raises(JobFailedError, match="has 2097154 bytes; the limit is 1048576"):
            jobs.result(large.job_id, timeout=20)
    assert sorted(runs) == [1 << 19, 2 << 20]


def test_what_ends_in_this_process_is_known_without_another_look(
    app_with_rows: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = app_with_rows
    monkeypatch.setattr(job_results, "LOOK_FIRST", FOR_EVER)
    monkeypatch.setattr(job_results, "LOOK_AT_MOST", FOR_EVER)

    @actor
    async def works(fails: bool) -> int:
        if fails:
            raise Fail("on purpose")
        return 7

    later = [works.send_with_options(args=(fails,), delay=1500) for fails in (False, True)]
    with app.worker():
        assert jobs.result(later[0].job_id, timeout=60) == 7
        with pytest.raises(JobFailedError, match="on purpose"):
            jobs.result(later[1].job_id, timeout=60)

        sent = [works.send_with_options(args=(False,), delay=1500) for _ in range(50)]

        async def results() -> list[Any]:
            return await asyncio.gather(*(jobs.result_async(each.job_id, timeout=60) for each in sent))

        assert asyncio.run(results()) == [7] * 50
        ends = app.broker.runtime.ends
        assert not ends._bells
        assert not app.broker.events._by_type[JobFinished]


def test_who_gave_up_waiting_is_not_remembered(app_with_rows: Application) -> None:
    app = app_with_rows

    @actor
    async def works() -> None: ...

    far = works.send_with_options(delay=3_600_000)
    with pytest.raises(ResultTimeoutError):
        jobs.result(far.job_id, timeout=0.01)
    assert not app.broker.runtime.ends._bells
