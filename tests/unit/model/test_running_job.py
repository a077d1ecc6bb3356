"""`current_job`: where it is, and where it is not."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from jq_actors.actors.actor import JobActor, actor
from jq_actors.errors import RuntimeStateError
from jq_actors.model.command import JobCommand
from jq_actors.model.running_job import RunningJob, current_job, running
from tests.support.sending import RecordingBroker


def _job(made: JobActor[..., Any] | None = None, **options: Any) -> RunningJob:
    command: JobCommand[Any] = JobCommand("mail", "send_mail", (), {}, options)
    return RunningJob(command.job_id, 1, command, made)


def test_outside_of_a_job_there_is_none() -> None:
    with pytest.raises(RuntimeStateError, match="outside of a job"):
        current_job()


def test_it_is_the_innermost_and_ends_with_its_run_even_a_failed_one() -> None:
    outer, inner = _job(), _job()

    def fail() -> None:
        with running(inner):
            assert current_job() is inner
            raise ValueError("broken")

    with running(outer):
        with pytest.raises(ValueError, match="broken"):
            fail()
        assert current_job() is outer
    with pytest.raises(RuntimeStateError):
        current_job()


async def test_tasks_and_to_thread_inherit_it_and_jobs_side_by_side_do_not_mix() -> None:
    async def deep() -> RunningJob:
        await asyncio.sleep(0)
        return current_job()

    async def run(job: RunningJob) -> list[RunningJob]:
        with running(job):
            return [current_job(), await asyncio.create_task(deep()), await asyncio.to_thread(current_job)]

    jobs = [_job() for _ in range(20)]
    seen = await asyncio.gather(*(run(job) for job in jobs))
    assert all(found is job for job, row in zip(jobs, seen, strict=True) for found in row)


async def test_a_task_that_outlives_the_run_still_knows_its_job() -> None:
    ended = asyncio.Event()

    async def later() -> RunningJob:
        await ended.wait()
        return current_job()

    job = _job()
    with running(job):
        task = asyncio.create_task(later())
    ended.set()
    assert await task is job


def test_a_bare_thread_starts_without_one() -> None:
    seen: list[str] = []

    def look() -> None:
        try:
            current_job()
        except RuntimeStateError:
            seen.append("none")

    with running(_job()):
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    assert seen == ["none"]


def test_an_option_is_that_of_the_sending_else_of_the_actor_else_the_default() -> None:
    @actor(broker=RecordingBroker(), max_retries=5)
    def send_mail() -> None: ...

    assert _job(send_mail, max_retries=1).option("max_retries", 9) == 1
    assert _job(send_mail, max_retries=None).option("max_retries", 9) is None
    assert _job(send_mail).option("max_retries", 9) == 5
    assert _job(send_mail).option("time_limit", 9) == 9
    assert _job().option("max_retries", 9) == 9


def test_its_log_names_the_job_and_cannot_be_forged(caplog: pytest.LogCaptureFixture) -> None:
    job = _job()
    with caplog.at_level(logging.INFO, "jq_actors.job"):
        job.log("read %d rows of %s", 3, "a\nb")
        job.log("100%")
    assert caplog.messages == [f"job {job.id}: read 3 rows of a\\nb", f"job {job.id}: 100%"]
    assert {vars(record)["job_id"] for record in caplog.records} == {job.id}
