"""Claims of jobs in groups, as deliveries ask for them, and their ends."""

from __future__ import annotations

from jq_actors.job import JobId
from jq_actors.outcome import Outcome, Succeeded
from jq_actors.protocol import Verdict
from jq_actors.store.records import Claim, ClaimRequest, NewJob, Settlement
from jq_actors.store.sql import SqlStore

from .stores import clock


def asks(
    job: NewJob, *, dispatch: int = 1, queue: str | None = None, can_leave: bool = True, hint: bool = True
) -> ClaimRequest:
    """A delivery of ``job``."""
    group = job.group if hint else None
    token = clock.random_bits(63)
    return ClaimRequest(job.id, dispatch, token, True, None, queue or job.queue, can_leave, group)


def started(request: ClaimRequest, answer: Claim) -> JobId:
    """The job that was granted."""
    assert answer.verdict is Verdict.GRANT, answer
    return request.job_id if answer.instead is None else answer.instead.job_id


async def ends(
    store: SqlStore, request: ClaimRequest, answer: Claim, outcome: Outcome | None = None, *, keeps_turn: bool = False
) -> JobId:
    """End what was granted; returns which job that was."""
    job_id, now = started(request, answer), store.now()
    settlement = Settlement(job_id, request.run_token, outcome or Succeeded(), now, now, keeps_turn=keeps_turn)
    assert await store.settle(settlement)
    return job_id


async def runs(store: SqlStore, job: NewJob, outcome: Outcome | None = None, *, dispatch: int = 1) -> JobId:
    """Run what a delivery of ``job`` starts, to its end; returns which job that was."""
    request = asks(job, dispatch=dispatch)
    return await ends(store, request, await store.claim(request), outcome)
