"""The time limit in a worker: async actors are cancelled, sync ones interrupted in their thread."""

from __future__ import annotations

import asyncio
import itertools
import time

import pytest

from jq_actors import Job, actor
from tests.support.application import running

LIMIT = 200
MESSAGE = "The attempt took longer than its limit of 200ms."


@pytest.fixture
def configuration(sqlite_url: str) -> dict[str, object]:
    layers = [{"persistence": {"url": sqlite_url}}, {"retry": {"max_retries": 0}}, {"time_limit": {"limit": "1m"}}]
    return {"broker": {"url": "embedded://"}, "middleware": layers}


def assert_timed_out(job: Job) -> None:
    assert job.state == "failed"
    assert job.error is not None
    assert job.error.endswith(MESSAGE)


def test_an_async_actor_is_cancelled(configuration: dict[str, object]) -> None:
    with running(configuration) as app:

        @actor(time_limit=LIMIT)
        async def sleep_for_ever() -> None:
            await asyncio.Event().wait()

        with app.worker():
            assert_timed_out(app.ended(sleep_for_ever.send().job_id))


def test_a_sync_actor_is_interrupted_and_its_thread_serves_the_next_job(configuration: dict[str, object]) -> None:
    with running(configuration) as app:

        @actor(time_limit=LIMIT)
        def count_for_ever() -> None:
            for _ in itertools.count():
                time.sleep(0.001)  # the interrupt comes when the interpreter is back from it

        @actor
        def answer() -> int:
            return 42

        with app.worker(threads=1):
            assert_timed_out(app.ended(count_for_ever.send().job_id))
            job = app.ended(answer.send().job_id)

        assert (job.state, job.result) == ("succeeded", 42)


def test_an_attempt_that_was_stopped_is_retried_as_any_other_failure(sqlite_url: str) -> None:
    layers = [
        {"persistence": {"url": sqlite_url, "relay_interval": "100ms"}},
        {"retry": {"max_retries": 1, "min_backoff": 0, "max_backoff": 0}},
        {"time_limit": {"limit": "200ms"}},
    ]
    attempts: list[int] = []
    with running({"broker": {"url": "embedded://"}, "middleware": layers}) as app:

        @actor
        async def slow_at_first() -> str:
            attempts.append(len(attempts) + 1)
            if len(attempts) == 1:
                await asyncio.Event().wait()
            return "done"

        with app.worker():
            job = app.ended(slow_at_first.send().job_id)

    assert (job.state, job.attempt, attempts) == ("succeeded", 2, [1, 2])
    assert job.attempts[0].error is not None
    assert MESSAGE in job.attempts[0].error
