"""Where claims and outcomes are written: to rows (`persistence`), or to the broker alone.

The executor asks a :class:`Ledger` and does not know which. Both make a delivery an attempt, and an outcome durable
*before* the delivery is acknowledged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from jq_actors.errors import StoreError, StoreUnavailableError
from jq_actors.events import DeliveryBuried, Events, OutcomeDiscarded, TaskFailed
from jq_actors.model.claim_rules import Verdict, state_after
from jq_actors.model.command import JobCommand
from jq_actors.model.job import JobId
from jq_actors.model.outcome import Failed, Failure, Interrupted, Outcome, Unhandled, failure_of
from jq_actors.model.printable import escape
from jq_actors.store.port import JobStore
from jq_actors.store.records import Chain, Claim, ClaimRequest, NewJob, NextJob, Settled, Settlement
from jq_actors.transport.port import Delivery


@dataclass(slots=True, eq=False)
class Turn:
    """A delivery in hand, and what it led to: the run of its job, and in a group those that followed it here."""

    delivery: Delivery
    began_at: datetime
    """By the ledger's time."""
    since: float
    """The same, by the monotonic clock."""
    done: int = 0
    """Runs that have ended."""
    acked: bool = False
    """The delivery was let go early: the lease of the row that runs is the safety copy."""

    @property
    def is_safe(self) -> bool:
        """Whether the running job runs again elsewhere if this process dies: at once, or when its lease ends."""
        return self.acked or self.delivery.is_open

    def finish(self) -> None:
        """Acknowledge the delivery, unless it was let go early."""
        if not self.acked:
            self.delivery.ack()

    def requeue(self) -> None:
        """Give the delivery back, unless it was let go early."""
        if not self.acked:
            self.delivery.requeue()

    def ack_early(self) -> None:
        """Acknowledge the delivery while a job runs."""
        self.finish()
        self.acked = True


@dataclass(slots=True, eq=False)
class ActiveRun:
    """A granted claim: what settling it needs."""

    turn: Turn
    command: JobCommand[Any]
    claim: Claim
    run_token: int
    started_at: datetime
    is_own: bool = True
    """It is the job of the delivery in hand, not one that follows it in its group."""
    ended_at: datetime | None = None
    again_in: timedelta | None = None
    """Set when the run is settled but its delivery is still open: claim it again after that time."""

    @property
    def delivery(self) -> Delivery:
        """The delivery in hand."""
        return self.turn.delivery


@dataclass(frozen=True, slots=True)
class SettledRun:
    """What became of a run."""

    outcome: Outcome | None
    """The outcome that was written; ``None``: the claim was lost, and nothing was written."""
    next: NextJob | None = None
    """What runs from now on in its slot: then the delivery is still in hand."""


@dataclass(frozen=True, slots=True)
class _ClaimedJob:
    """The job of a claim, for giving it back."""

    job_id: JobId
    group: str | None


class Ledger(Protocol):
    """Turns deliveries into attempts, and makes outcomes durable."""

    @property
    def has_rows(self) -> bool:
        """Whether jobs are stored in rows, and so survive without a delivery."""
        ...

    def now(self) -> datetime:
        """The time that goes into records."""
        ...

    async def claim(self, delivery: Delivery, command: JobCommand[Any], run_token: int, slot: str) -> Claim:
        """Decide what to do with a delivery whose job would run in ``slot``."""
        ...

    async def settle(self, run: ActiveRun, outcome: Outcome, chain: Chain | None) -> SettledRun:
        """Write the outcome, then end the delivery, unless by ``chain`` another job of the group follows it here."""
        ...

    def forget(self, run_token: int) -> None:
        """This process no longer handles that run: it was settled, or an error of ours ended it."""
        ...

    async def requeue_forgotten(self) -> None:
        """Queue again the jobs whose handling here was ended by an error of ours."""
        ...

    async def set_aside(self, job_id: JobId, dispatch: int, reason: str) -> bool:
        """Record that this dispatch cannot be decoded, so no worker can run it. Returns whether such a job is known."""
        ...

    async def mark_unhandled(self, job: NextJob, reason: str) -> None:
        """Record the same of a job whose claim is already granted."""
        ...


class RowLedger:
    """With persistence: rows are the truth, and a delivery only announces its job."""

    has_rows = True

    def __init__(self, store: JobStore, events: Events) -> None:
        self._store, self._events = store, events
        self._alive: dict[int, _ClaimedJob | None] = {}
        """By token: the claims that are being made, run or settled here; ``None``: not granted yet, or settled."""
        self._forgotten: dict[int, _ClaimedJob] = {}
        """By token: runs that were never settled. Their rows say that they run here."""

    def now(self) -> datetime:
        """Database time."""
        return self._store.now()

    async def claim(self, delivery: Delivery, command: JobCommand[Any], run_token: int, slot: str) -> Claim:
        """The row's compare-and-set."""
        now = self._store.now()
        adopt = None if command.promised else new_row(command, delivery.queue, now)
        request = ClaimRequest(
            command.job_id,
            delivery.dispatch,
            run_token,
            command.promised,
            adopt,
            delivery.redelivered,
            slot,
        )
        self._alive[run_token] = None  # before the grant, so that no other copy of the job considers the run forgotten
        claim = None
        try:
            claim = await self._store.claim(request)
            if claim.own_token is not None and claim.own_token not in self._alive:
                # Published again: this delivery may be an older copy of it, which cannot claim it any more.
                await self._requeue(_ClaimedJob(command.job_id, claim.group), claim.own_token, republish=True)
                claim = await self._store.claim(request)
        finally:
            if claim is None or claim.verdict is not Verdict.GRANT:
                del self._alive[run_token]
            else:
                job_id = command.job_id if claim.instead is None else claim.instead.job_id
                self._alive[run_token] = _ClaimedJob(job_id, claim.group)
        return claim

    async def settle(self, run: ActiveRun, outcome: Outcome, chain: Chain | None) -> SettledRun:
        """Write under the fence of the run token, then ack, or give back an interrupted job's delivery."""
        if chain is not None:
            self._alive[chain.run_token] = None
        settled = Settled(written=False)
        try:
            settled, outcome = await self._write(run, outcome, chain)
            self._alive[run.run_token] = None
        finally:
            if settled.next is not None:
                self._alive[settled.next.run_token] = _ClaimedJob(settled.next.job_id, settled.next.group)
            elif chain is not None:
                del self._alive[chain.run_token]
        if not settled.written:
            state = state_after(outcome).value
            self._events.emit(OutcomeDiscarded(run.command.job_id, run.command.actor_name, state))
        if settled.written and isinstance(outcome, Interrupted) and run.is_own:
            run.turn.requeue()
        elif settled.next is None:
            run.turn.finish()
        return SettledRun(outcome if settled.written else None, settled.next)

    def forget(self, run_token: int) -> None:
        """Remember a run that was not settled: `requeue_forgotten` gives its job back."""
        run = self._alive.pop(run_token, None)
        if run is not None:
            self._forgotten[run_token] = run

    async def requeue_forgotten(self) -> None:
        """Queue the forgotten jobs again. A failure is reported (`TaskFailed`), and the next call tries once more."""
        for token, run in tuple(self._forgotten.items()):
            try:
                # The delivery may be gone, belong to another job by now, or be in another worker's hands.
                await self._requeue(run, token, republish=True)
            except Exception as error:  # noqa: BLE001 - whatever it is, the others are given back, too
                failure = failure_of(error)
                self._events.emit(TaskFailed(f"the return of job {run.job_id}", failure.error, failure.traceback))

    async def set_aside(self, job_id: JobId, dispatch: int, reason: str) -> bool:
        """Make the row of a job unhandled; returns whether there is such a job."""
        return await self._store.set_aside(job_id, dispatch, reason)

    async def mark_unhandled(self, job: NextJob, reason: str) -> None:
        """Make the row of a granted job unhandled."""
        now = self._store.now()
        await self._store.settle(Settlement(job.job_id, job.run_token, Unhandled(reason), now, now, group=job.group))
        self._alive[job.run_token] = None

    async def _requeue(self, run: _ClaimedJob, token: int, *, republish: bool) -> None:
        """Queue a job again that is claimed by this worker, but no longer handled by it.

        Nobody else would do so while this worker is alive.
        """
        now = self._store.now()
        interrupted = Settlement(run.job_id, token, Interrupted(), now, now, republish=republish, group=run.group)
        await self._store.settle(interrupted)
        self._forgotten.pop(token, None)

    async def _write(self, run: ActiveRun, outcome: Outcome, chain: Chain | None) -> tuple[Settled, Outcome]:
        settlement = Settlement(
            run.command.job_id,
            run.run_token,
            outcome,
            run.started_at,
            run.ended_at or self._store.now(),
            # A delivery in hand is the broker's copy of its own job only. If the delivery was lost, another worker may
            # have dropped its copy on seeing that the job ran here.
            republish=isinstance(outcome, Interrupted) and not (run.is_own and run.turn.delivery.is_open),
            group=run.claim.group,
            chain=chain,
        )
        try:
            return await self._store.settle(settlement), outcome
        except StoreUnavailableError:
            raise
        except StoreError as error:
            # The database refuses this very outcome (a value that it cannot hold). Without an outcome the job would
            # appear to run for ever, so it fails with the reason that its outcome could not be stored.
            refused = Failed(Failure(error, f"its outcome could not be stored: {escape(str(error))[:500]}"))
            return await self._store.settle(replace(settlement, outcome=refused)), refused


def bury(delivery: Delivery, reason: str, events: Events) -> None:
    """Move a delivery to the dead queue, and report it (`DeliveryBuried`)."""
    delivery.bury(reason)
    events.emit(DeliveryBuried(delivery.queue, reason))


def new_row(command: JobCommand[Any], queue: str, now: datetime) -> NewJob:
    """The row that stands for ``command``."""
    return NewJob(
        id=command.job_id,
        actor=command.actor_name,
        queue=queue,
        body=command.encode(),
        due_at=command.due_at or now,
        enqueued_at=now,
        group=command.group,
        position=command.position,
        priority=command.priority,
        tags=command.tags,
    )
