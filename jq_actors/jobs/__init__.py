"""Look at jobs, wait for their results, steer them and their groups: ``from jq_actors import jobs``.

Every function has an ``_async`` twin. All of it needs the `persistence` middleware: without it there is nothing to
look at.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jq_actors.jobs.groups import group, group_async, groups, groups_async, pause, pause_async, resume, resume_async
from jq_actors.jobs.results import result, result_async
from jq_actors.jobs.steering import move, move_async, retry, retry_async
from jq_actors.jobs.store_access import call, check_limit, look
from jq_actors.model.job import Job, JobId, parse_states
from jq_actors.store.records import JobFilter, JobPage

__all__ = [
    "find",
    "find_async",
    "get",
    "get_async",
    "group",
    "group_async",
    "groups",
    "groups_async",
    "move",
    "move_async",
    "pause",
    "pause_async",
    "result",
    "result_async",
    "resume",
    "resume_async",
    "retry",
    "retry_async",
]


def get(job_id: str) -> Job | None:
    """The job with this id, its attempts and its place included; ``None`` when there is none."""
    return call("jobs.get", lambda _, store: store.get(JobId(job_id)))


async def get_async(job_id: str) -> Job | None:
    """Twin of `get`."""
    return await look("jobs.get", lambda _, store: store.get(JobId(job_id)))


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
    where = JobFilter(parse_states(state), actor, queue, group, tuple(tags))
    check_limit(limit)
    return call("jobs.find", lambda _, store: store.find(where, limit, after))


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
    where = JobFilter(parse_states(state), actor, queue, group, tuple(tags))
    check_limit(limit)
    return await look("jobs.find", lambda _, store: store.find(where, limit, after))
