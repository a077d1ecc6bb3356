"""Waiting for what a job comes to: `jobs.result`."""

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

from .store_access import call, look

LOOK_FIRST, LOOK_AT_MOST = 0.01, 0.5
"""Seconds between two looks of `result`: it starts quick and doubles. What ends in this process is seen at once."""


def result(job_id: str, *, timeout: float | timedelta = 10.0) -> Any:
    """What the job returned, waiting up to ``timeout`` (seconds or a timedelta) for its end.

    Raises:
      JobNotFoundError, JobFailedError, JobCancelledError, JobSupersededError, JobUnhandledError: it has ended
        without one, or cannot run.
      ResultTimeoutError: it has not ended; it goes on.
    """
    seconds = _seconds(timeout)
    return call("jobs.result", lambda runtime, store: _result(runtime, store, JobId(job_id), seconds))


async def result_async(job_id: str, *, timeout: float | timedelta = 10.0) -> Any:
    """Twin of `result`."""
    seconds = _seconds(timeout)
    return await look("jobs.result", lambda runtime, store: _result(runtime, store, JobId(job_id), seconds))


def _seconds(timeout: float | timedelta) -> float:
    return timeout.total_seconds() if isinstance(timeout, timedelta) else timeout


async def _result(runtime: Runtime, store: JobStore, job_id: JobId, timeout: float) -> Any:
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
