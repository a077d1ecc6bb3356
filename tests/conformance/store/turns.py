"""Claims of jobs in groups, as deliveries ask for them, their ends, and what follows them."""

from __future__ import annotations

from jq_actors.model.claim_rules import Verdict
from jq_actors.model.job import JobId
from jq_actors.model.outcome import Outcome, Succeeded
from jq_actors.store.records import Chain, Claim, ClaimRequest, NewJob, NextJob, Settled, Settlement
from jq_actors.store.sql import SqlStore

from .stores import clock

SLOT = "coroutines:mail"
FITS = {SLOT: frozenset({("mail", "send_mail")})}
"""What follows in that slot of this process."""


def asks(job: NewJob, *, dispatch: int = 1, redelivered: bool = False, slot: str = SLOT) -> ClaimRequest:
    """A delivery of ``job``."""
    return ClaimRequest(job.id, dispatch, clock.random_bits(63), True, None, redelivered, slot)


def a_chain(slot: str = SLOT) -> Chain:
    """The wish to go on."""
    return Chain(clock.random_bits(63), slot)


def started(request: ClaimRequest, answer: Claim) -> JobId:
    """The job that was granted."""
    assert answer.verdict is Verdict.GRANT, answer
    return request.job_id if answer.instead is None else answer.instead.job_id


async def ends(
    store: SqlStore,
    request: ClaimRequest,
    answer: Claim,
    outcome: Outcome | None = None,
    *,
    chain: Chain | None = None,
) -> Settled:
    """End what was granted."""
    now = store.now()
    settled = await store.settle(
        Settlement(
            started(request, answer),
            request.run_token,
            outcome or Succeeded(),
            now,
            now,
            group=answer.group,
            chain=chain,
        )
    )
    assert settled.written
    return settled


async def goes_on(
    store: SqlStore, job: NextJob, outcome: Outcome | None = None, *, chain: Chain | None = None
) -> Settled:
    """End a job that followed another one."""
    now = store.now()
    settlement = Settlement(job.job_id, job.run_token, outcome or Succeeded(), now, now, group=job.group, chain=chain)
    settled = await store.settle(settlement)
    assert settled.written
    return settled


async def runs(
    store: SqlStore,
    job: NewJob,
    outcome: Outcome | None = None,
    *,
    dispatch: int | None = None,
    chain: Chain | None = None,
) -> Settled:
    """Run ``job`` to its end, by a delivery of the dispatch that counts now."""
    if dispatch is None:
        found = await store.get(job.id)
        assert found is not None
        dispatch = found.dispatch
    request = asks(job, dispatch=dispatch)
    return await ends(store, request, await store.claim(request), outcome, chain=chain)
