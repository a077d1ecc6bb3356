"""Looks at jobs: `jobs.get` and `jobs.find`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jq_actors.model.job import Job, JobId, parse_states
from jq_actors.store.records import JobFilter, JobPage

from .store_access import Question, call_sync, check_limit, read


def get(job_id: str) -> Job | None:
    """The job with this id, with its attempts and its place in line; ``None`` if there is none."""
    return call_sync("jobs.get", _get(job_id))


async def get_async(job_id: str) -> Job | None:
    """Twin of `get`."""
    return await read("jobs.get", _get(job_id))


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
      actor: the actor's name.
      queue: the queue's name.
      group: the group's name.
      tags: a job must have all of them.
      limit: the size of the page, 1 to 1000.
      after: the ``cursor`` of the previous page.

    Raises:
      ValueError: a state is unknown, the limit is out of range, or the cursor is invalid.
    """
    return call_sync("jobs.find", _find(job_filter(state, actor, queue, group, tags), limit, after))


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
    return await read("jobs.find", _find(job_filter(state, actor, queue, group, tags), limit, after))


def job_filter(
    state: str | Iterable[str], actor: str | None, queue: str | None, group: str | None, tags: Sequence[str]
) -> JobFilter:
    """The filter for the arguments that `jobs.find` and `jobs.retry` share.

    Raises:
      ValueError: a state is unknown.
    """
    return JobFilter(parse_states(state), actor, queue, group, tuple(tags))


def _get(job_id: str) -> Question[Job | None]:
    return lambda _, store: store.get(JobId(job_id))


def _find(where: JobFilter, limit: int, after: str | None) -> Question[JobPage]:
    check_limit(limit)
    return lambda _, store: store.find(where, limit, after)
