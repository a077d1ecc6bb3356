"""Waits for the result of a job: `jobs.result`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, assert_never

from jq_actors.errors import (
    JobCancelledError,
    JobFailedError,
    JobNotFoundError,
    JobSupersededError,
    JobUnhandledError,
    ResultTimeoutError,
)
from jq_actors.model.job import JobId, JobState
from jq_actors.process.runtime import Runtime
from jq_actors.store.port import JobStore
from jq_actors.store.records import JobEnd

from .store_access import Question, call_sync, read

LOOK_FIRST, LOOK_AT_MOST = 0.01, 0.5
"""Seconds between two checks of `result`; they double. A job that ends in this process is noticed at once."""


def result(job_id: str, *, timeout: float | timedelta = 10.0) -> Any:
    """Wait until the job has ended, and return what it returned.

    Parameters:
      timeout: how long to wait; seconds or a timedelta.

    Raises:
      JobNotFoundError: there is no job with this id.
      JobFailedError, JobCancelledError, JobSupersededError: the job ended without a result.
      JobUnhandledError: the job cannot run.
      ResultTimeoutError: the job has not ended yet; the timeout does not affect it.
    """
    return call_sync("jobs.result", _result(JobId(job_id), timeout))


async def result_async(job_id: str, *, timeout: float | timedelta = 10.0) -> Any:
    """Twin of `result`."""
    return await read("jobs.result", _result(JobId(job_id), timeout))


def _result(job_id: JobId, timeout: float | timedelta) -> Question[Any]:
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    return lambda runtime, store: _wait(runtime, store, job_id, seconds)


async def _wait(runtime: Runtime, store: JobStore, job_id: JobId, timeout: float) -> Any:
    clock, pause = runtime.clock, LOOK_FIRST
    deadline = clock.monotonic() + timeout
    with runtime.ends.awaited(job_id) as bell:
        while True:
            end = await store.end_of(job_id)
            if end is None:
                raise JobNotFoundError(job_id)
            if end.state.is_final or end.state is JobState.UNHANDLED:
                return _value_of(job_id, end)
            left = deadline - clock.monotonic()
            if left <= 0:
                raise ResultTimeoutError(job_id, timeout, end.state.value)
            await bell.wait(min(pause, left))
            pause = min(pause * 2, LOOK_AT_MOST)


def _value_of(job_id: JobId, end: JobEnd) -> Any:
    match end.state:
        case JobState.SUCCEEDED:
            return end.result
        case JobState.FAILED:
            raise JobFailedError(job_id, end.error or end.reason, end.traceback)
        case JobState.CANCELLED:
            raise JobCancelledError(job_id, end.reason)
        case JobState.SUPERSEDED:
            raise JobSupersededError(job_id, end.reason)
        case JobState.UNHANDLED:
            raise JobUnhandledError(job_id, end.reason)
        case JobState.SCHEDULED | JobState.QUEUED | JobState.WAITING | JobState.RUNNING | JobState.RETRYING:
            raise AssertionError(f"job {job_id} is {end.state}, which is not its end")
        case _:
            assert_never(end.state)
