"""What an operator does to jobs: `jobs.retry` and `jobs.move`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jq_actors.errors import JobNotFoundError
from jq_actors.model.job import Job, JobId, JobState, parse_states
from jq_actors.process.runtime import Runtime
from jq_actors.store.port import JobStore
from jq_actors.store.records import JobFilter

from .groups import named
from .store_access import MAX_PAGE, call, change, check_limit

RETRIED_STATES = frozenset({JobState.FAILED, JobState.CANCELLED})
"""Those that `retry` changes."""


def retry(
    job_id: str | Sequence[str] | None = None,
    *,
    state: str | Iterable[str] = (),
    actor: str | None = None,
    queue: str | None = None,
    group: str | None = None,
    tags: Sequence[str] = (),
    limit: int = MAX_PAGE,
) -> list[JobId]:
    """Run jobs again that have failed or were cancelled: these, or those that have such a state, actor and so on.

    In a group they take their old places: several run in their first order, before what was sent after them. They are
    queued at once and published by a relay: that of this process without delay, that of a worker elsewhere at its next
    look (``relay_interval``).

    Parameters:
      job_id: one id, or up to 1000.
      state: ``failed``, ``cancelled`` or both. Needed without ids, and only then.
      tags: all of them.
      limit: without ids: at most so many, 1 to 1000. When the answer has as many, there may be more.

    Returns:
      The ids of those that run again. One that has neither failed nor was cancelled is left as it is.

    Raises:
      JobNotFoundError: there is no job with one of the ids; the others were retried.
      ValueError: neither ids nor a state, or both; a state that cannot be retried; a limit out of range.
    """
    where, ids = _chosen(job_id, JobFilter(parse_states(state), actor, queue, group, tuple(tags)))
    check_limit(limit)
    return call("jobs.retry", lambda runtime, store: _retry(runtime, store, where, ids, limit))


async def retry_async(
    job_id: str | Sequence[str] | None = None,
    *,
    state: str | Iterable[str] = (),
    actor: str | None = None,
    queue: str | None = None,
    group: str | None = None,
    tags: Sequence[str] = (),
    limit: int = MAX_PAGE,
) -> list[JobId]:
    """Twin of `retry`."""
    where, ids = _chosen(job_id, JobFilter(parse_states(state), actor, queue, group, tuple(tags)))
    check_limit(limit)
    return await change("jobs.retry", lambda runtime, store: _retry(runtime, store, where, ids, limit))


def move(job_id: str, *, group: str | None = None, front: bool = False) -> Job:
    """Put an unfinished job that does not run to the end of another group, or to the front of its own.

    The others keep their order. A job that runs is not interrupted: the one at the front comes after it.

    Parameters:
      group: the group that it goes to, known or not yet known.
      front: to the front of its own group, instead.

    Returns:
      The job as it is now, with its place.

    Raises:
      JobNotFoundError: there is no job with this id.
      StoreError: it runs or has ended, is in no group, or one of the groups is numbered; nothing was changed.
      ValueError: neither a group nor ``front``, or both, or a group that cannot be one.
    """
    to = _target(group, front)
    return call("jobs.move", lambda runtime, store: _move(runtime, store, JobId(job_id), to))


async def move_async(job_id: str, *, group: str | None = None, front: bool = False) -> Job:
    """Twin of `move`."""
    to = _target(group, front)
    return await change("jobs.move", lambda runtime, store: _move(runtime, store, JobId(job_id), to))


def _chosen(job_id: str | Sequence[str] | None, where: JobFilter) -> tuple[JobFilter, list[JobId] | None]:
    if job_id is None:
        if not where.states or where.states - RETRIED_STATES:
            raise ValueError("Say which jobs to retry: their ids, or state='failed', state='cancelled' or both.")
        return where, None
    if where != JobFilter():
        raise ValueError("Say which jobs to retry by their ids or by what they have in common, not by both.")
    ids = [JobId(one) for one in dict.fromkeys([job_id] if isinstance(job_id, str) else job_id)]
    if len(ids) > MAX_PAGE:
        raise ValueError(f"{len(ids)} ids; allowed are up to {MAX_PAGE} at once.")
    return where, ids


def _target(group: str | None, front: bool) -> str | None:
    if front is (group is not None):
        raise ValueError("Say where to move the job: group='…' or front=True, one of them.")
    return None if group is None else named(group)


async def _retry(
    runtime: Runtime, store: JobStore, where: JobFilter, ids: Sequence[JobId] | None, limit: int
) -> list[JobId]:
    if ids is not None and not ids:
        return []  # to the store, no ids would mean those of the filter
    retried = await store.retry(where, ids or (), len(ids) if ids else limit)
    if retried:
        runtime.sender.on_stored()
    for job_id in sorted(set(ids or ()) - set(retried)):
        if await store.get(job_id) is None:
            raise JobNotFoundError(job_id)
    return retried


async def _move(runtime: Runtime, store: JobStore, job_id: JobId, to: str | None) -> Job:
    if await store.move(job_id, to) is None:
        raise JobNotFoundError(job_id)
    runtime.sender.on_stored()
    job = await store.get(job_id)
    if job is None:
        raise JobNotFoundError(job_id)  # it has run meanwhile, and its row is not kept
    return job
