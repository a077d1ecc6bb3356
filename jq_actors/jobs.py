"""Look at jobs and wait for their results: ``from jq_actors import jobs``. Every function has an ``_async`` twin.

All of it needs the `persistence` middleware: without it there is nothing to look at.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from datetime import timedelta
from typing import Any, TypeVar, assert_never

from .errors import (
    JobCancelledError,
    JobFailedError,
    JobNotFoundError,
    JobSupersededError,
    JobUnhandledError,
    ResultTimeoutError,
)
from .installed import installed_broker
from .job import Job, JobId, JobState, parse_states
from .runtime import Runtime
from .store.port import JobFilter, JobPage, JobStore

T = TypeVar("T")

LOOK_FIRST, LOOK_AT_MOST = 0.01, 0.5
"""Seconds between two looks of `result`: it starts quick and doubles."""
MAX_PAGE = 1000


def get(job_id: str) -> Job | None:
    """The job with this id, its attempts included; ``None`` when there is none."""
    return _call("jobs.get", lambda _, store: store.get(JobId(job_id)))


async def get_async(job_id: str) -> Job | None:
    """Twin of `get`."""
    return await _run("jobs.get", lambda _, store: store.get(JobId(job_id)))


def find(
    *,
    state: str | Iterable[str] = (),
    actor: str | None = None,
    queue: str | None = None,
    group: str | None = None,
    tags: Sequence[str] = (),
    limit: int = 50,
    after: str | None = None,
) -> JobPage:
    """A page of jobs, newest first.

    Parameters:
      state: one state or several.
      tags: all of them.
      limit: 1 to 1000.
      after: the ``cursor`` of the page before.

    Raises:
      ValueError: an unknown state, a limit out of range, or a cursor that is none.
    """
    where = _filter(state, actor, queue, group, tags, limit)
    return _call("jobs.find", lambda _, store: store.find(where, limit, after))


async def find_async(
    *,
    state: str | Iterable[str] = (),
    actor: str | None = None,
    queue: str | None = None,
    group: str | None = None,
    tags: Sequence[str] = (),
    limit: int = 50,
    after: str | None = None,
) -> JobPage:
    """Twin of `find`."""
    where = _filter(state, actor, queue, group, tags, limit)
    return await _run("jobs.find", lambda _, store: store.find(where, limit, after))


def result(job_id: str, *, timeout: float | timedelta = 10.0) -> Any:
    """What the job returned, waiting up to ``timeout`` (seconds or a timedelta) for its end.

    Raises:
      JobNotFoundError, JobFailedError, JobCancelledError, JobSupersededError, JobUnhandledError: it has ended
        without one, or cannot run.
      ResultTimeoutError: it has not ended; it goes on.
    """
    seconds = _seconds(timeout)
    return _call("jobs.result", lambda runtime, store: _result(runtime, store, JobId(job_id), seconds))


async def result_async(job_id: str, *, timeout: float | timedelta = 10.0) -> Any:
    """Twin of `result`."""
    seconds = _seconds(timeout)
    return await _run("jobs.result", lambda runtime, store: _result(runtime, store, JobId(job_id), seconds))


Question = Callable[[Runtime, JobStore], Coroutine[Any, Any, T]]


def _call(what: str, ask: Question[T]) -> T:
    runtime = installed_broker().runtime
    return runtime.io.call(ask(runtime, runtime.require_store(what)))


async def _run(what: str, ask: Question[T]) -> T:
    runtime = await installed_broker().runtime_async()
    return await runtime.io.run(ask(runtime, runtime.require_store(what)), cancel=True)


def _filter(
    state: str | Iterable[str],
    actor: str | None,
    queue: str | None,
    group: str | None,
    tags: Sequence[str],
    limit: int,
) -> JobFilter:
    if not 1 <= limit <= MAX_PAGE:
        raise ValueError(f"limit is {limit}; allowed are 1 to {MAX_PAGE}.")
    states = parse_states([state] if isinstance(state, str) else state)
    return JobFilter(states, actor, queue, group, tuple(tags))


def _seconds(timeout: float | timedelta) -> float:
    return timeout.total_seconds() if isinstance(timeout, timedelta) else timeout


async def _result(runtime: Runtime, store: JobStore, job_id: JobId, timeout: float) -> Any:
    clock, pause = runtime.clock, LOOK_FIRST
    deadline = clock.monotonic() + timeout
    while True:
        job = await store.get(job_id)
        if job is None:
            raise JobNotFoundError(job_id)
        if job.state.is_final or job.state is JobState.UNHANDLED:
            return _end_of(job)
        left = deadline - clock.monotonic()
        if left <= 0:
            raise ResultTimeoutError(job_id, timeout, job.state.value)
        await clock.sleep(min(pause, left))
        pause = min(pause * 2, LOOK_AT_MOST)


def _end_of(job: Job) -> Any:
    match job.state:
        case JobState.SUCCEEDED:
            return job.result
        case JobState.FAILED:
            raise JobFailedError(job.id, job.error or job.reason, job.traceback)
        case JobState.CANCELLED:
            raise JobCancelledError(job.id, job.reason)
        case JobState.SUPERSEDED:
            raise JobSupersededError(job.id, job.reason)
        case JobState.UNHANDLED:
            raise JobUnhandledError(job.id, job.reason)
        case JobState.SCHEDULED | JobState.QUEUED | JobState.WAITING | JobState.RUNNING | JobState.RETRYING:
            raise AssertionError(f"job {job.id} is {job.state}, which is not its end")
        case _:
            assert_never(job.state)
