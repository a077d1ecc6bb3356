"""Results: how large they may be, and how soon who waits for one has it."""

from __future__ import annotations

import pytest

from jq_actors import actor, jobs
from jq_actors.errors import JobFailedError
from tests.support.application import Application


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
