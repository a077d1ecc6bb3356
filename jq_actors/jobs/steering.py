"""What an operator does to jobs: `jobs.retry` and `jobs.move`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jq_actors.errors import JobNotFoundError
from jq_actors.model.job import Job, JobId, JobState
from jq_actors.process.runtime import Runtime
from jq_actors.store.port import JobStore
from jq_actors.store.records import JobFilter

from .groups import named
from .reading import job_filter
from .store_access import MAX_PAGE, Question, call_sync, check_limit, write

RETRIED_STATES = frozenset({JobState.FAILED, JobState.CANCELLED})
"""The states of the jobs that `retry` runs again."""


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
    """Run failed or cancelled jobs again: those with the given ids, or all that match the state, actor and so on.

    In a group, jobs return to their old places: they run in their original order, before jobs that were sent later.
    They are queued at once and published by a relay: without delay if this process has one, otherwise when a worker's
    relay next checks (``relay_interval``).

    Parameters:
      job_id: one id, or up to 1000.
      state: ``failed``, ``cancelled`` or both. Required without ids, and not allowed with them.
      tags: a job must have all of them.
      limit: without ids, the most jobs to retry, 1 to 1000. If that many are returned, there may be more.

    Returns:
      The ids of the jobs that run again. A job that is neither failed nor cancelled is left as it is.

    Raises:
      JobNotFoundError: one of the ids has no job; the others were retried.
      ValueError: neither ids nor a state is given, or both; a state cannot be retried; the limit is out of range.
    """
    return call_sync("jobs.retry", _retry(job_id, job_filter(state, actor, queue, group, tags), limit))


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
    return await write("jobs.retry", _retry(job_id, job_filter(state, actor, queue, group, tags), limit))


def move(job_id: str, *, group: str | None = None, front: bool = False) -> Job:
    """Move an unfinished job that is not running to the end of another group, or to the front of its own.

    The other jobs keep their order. A running job is not interrupted: the job at the front starts after it.

    Parameters:
      group: the group to move to; it need not exist yet.
      front: move to the front of the job's own group instead.

    Returns:
      The job as it is now, with its place in line.

    Raises:
      JobNotFoundError: there is no job with this id.
      StoreError: the job is running, has ended or is in no group, or one of the groups is numbered. Nothing was
        changed.
      ValueError: neither ``group`` nor ``front`` is given, or both; or the group's name is invalid.
    """
    return call_sync("jobs.move", _move(JobId(job_id), group, front))


async def move_async(job_id: str, *, group: str | None = None, front: bool = False) -> Job:
    """Twin of `move`."""
    return await write("jobs.move", _move(JobId(job_id), group, front))


def _retry(job_id: str | Sequence[str] | None, where: JobFilter, limit: int) -> Question[list[JobId]]:
    where, ids = _chosen(job_id, where)
    check_limit(limit)

    async def retry_them(runtime: Runtime, store: JobStore) -> list[JobId]:
        if ids is not None and not ids:
            return []  # to the store, no ids would mean all jobs that match the filter
        retried = await store.retry(where, ids or (), len(ids) if ids else limit)
        if retried:
            runtime.sender.on_stored()
        for missing in sorted(set(ids or ()) - set(retried)):
            if await store.get(missing) is None:
                raise JobNotFoundError(missing)
        return retried

    return retry_them


def _move(job_id: JobId, group: str | None, front: bool) -> Question[Job]:
    to = _target(group, front)

    async def move_it(runtime: Runtime, store: JobStore) -> Job:
        if await store.move(job_id, to) is None:
            raise JobNotFoundError(job_id)
        runtime.sender.on_stored()
        job = await store.get(job_id)
        if job is None:
            raise JobNotFoundError(job_id)  # it has run in the meantime, and its row is not kept
        return job

    return move_it


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
        raise ValueError("Say where to move the job: either group='…' or front=True.")
    return None if group is None else named(group)
