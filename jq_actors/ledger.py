"""Where claims and outcomes are written: into rows (`persistence`), or nowhere but the broker.

The executor asks a :class:`Ledger` and does not know which. Both make a delivery an attempt, and an outcome durable
*before* the delivery is acknowledged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from .command import JobCommand
from .errors import StoreError, StoreUnavailableError
from .events import DeliveryBuried, Events, OutcomeDiscarded, escape
from .job import JobId
from .outcome import Failed, Failure, Interrupted, Outcome, Unhandled
from .protocol import Verdict, state_after
from .store.port import JobStore
from .store.records import Chain, Claim, ClaimRequest, NewJob, NextJob, Settled, Settlement
from .transport.port import Delivery


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
        """Whether what runs comes back to somebody when this process dies: at once, or when its lease is over."""
        return self.acked or self.delivery.is_open

    def finish(self) -> None:
        """Acknowledge the delivery, unless it was let go early."""
        if not self.acked:
            self.delivery.ack()

    def give_back(self) -> None:
        """Give the delivery back, unless it was let go early."""
        if not self.acked:
            self.delivery.requeue()

    def let_go_early(self) -> None:
        """Acknowledge the delivery while a job runs."""
        self.finish()
        self.acked = True


@dataclass(slots=True, eq=False)
class Claimed:
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
    """Set when it is settled and the delivery is not ended: ask about it again after that time."""

    @property
    def delivery(self) -> Delivery:
        """The one in hand."""
        return self.turn.delivery


@dataclass(frozen=True, slots=True)
class SettledRun:
    """What became of a run."""

    written: bool
    """``False``: the claim was lost, nothing was written."""
    next: NextJob | None = None
    """What runs from now on in its slot: then the delivery is still in hand."""


class Ledger(Protocol):
    """Makes deliveries attempts, and outcomes durable."""

    @property
    def chains(self) -> bool:
        """Whether it can let a group's next job follow in the same slot."""
        ...

    def now(self) -> datetime:
        """The time that is written."""
        ...

    async def claim(self, delivery: Delivery, command: JobCommand[Any], run_token: int) -> Claim:
        """Decide over a delivery."""
        ...

    async def settle(self, claimed: Claimed, outcome: Outcome, chain: Chain | None) -> SettledRun:
        """Write the outcome, then end the delivery, unless by ``chain`` another job of the group follows it here."""
        ...

    def forget(self, run_token: int) -> None:
        """The life of that run here is over, whether it was settled or an error of ours ended it."""
        ...

    async def set_aside(self, job_id: JobId, dispatch: int, reason: str) -> bool:
        """Nobody can run this dispatch, since it cannot be decoded. ``False``: nothing is known of such a job."""
        ...

    async def give_up(self, job: NextJob, reason: str) -> None:
        """The same of a job that was granted already."""
        ...


class RowLedger:
    """With persistence: rows are the truth, deliveries only carry the news."""

    chains = True

    def __init__(self, store: JobStore, events: Events) -> None:
        self._store, self._events = store, events
        self._alive: set[int] = set()
        """Tokens of the claims that are being made, run or settled here."""
        self._forgotten: dict[int, NextJob] = {}
        """By token: jobs that followed a delivery of another one, and whose life here an error of ours has ended."""

    def now(self) -> datetime:
        """Database time."""
        return self._store.now()

    async def claim(self, delivery: Delivery, command: JobCommand[Any], run_token: int) -> Claim:
        """The row's compare-and-set."""
        now = self._store.now()
        adopt = None if command.promised else new_row(command, delivery.queue, now)
        request = ClaimRequest(
            command.job_id, delivery.dispatch, run_token, command.promised, adopt, delivery.redelivered
        )
        self._alive.add(run_token)  # before it may be granted: no other copy must take it for forgotten
        claim = None
        try:
            await self._give_back_forgotten()
            claim = await self._store.claim(request)
            if claim.own_token is not None and claim.own_token not in self._alive:
                await self._give_back(command.job_id, claim.own_token, claim.group, republish=False)
                claim = await self._store.claim(request)
            self._note(claim.instead)
            return claim
        finally:
            if claim is None or claim.verdict is not Verdict.GRANT:
                self._alive.discard(run_token)

    async def settle(self, claimed: Claimed, outcome: Outcome, chain: Chain | None) -> SettledRun:
        """Write under the fence of the run token, then ack, or give back an interrupted job's delivery."""
        if chain is not None:
            self._alive.add(chain.run_token)
        settled = Settled(written=False)
        try:
            settled = await self._write(claimed, outcome, chain)
        finally:
            if chain is not None and settled.next is None:
                self._alive.discard(chain.run_token)
        self._note(settled.next)
        self._forgotten.pop(claimed.run_token, None)
        if not settled.written:
            state = state_after(outcome).value
            self._events.emit(OutcomeDiscarded(claimed.command.job_id, claimed.command.actor_name, state))
        if settled.written and isinstance(outcome, Interrupted) and claimed.is_own:
            claimed.turn.give_back()
        elif settled.next is None:
            claimed.turn.finish()
        return SettledRun(settled.written, settled.next)

    def forget(self, run_token: int) -> None:
        """See `Ledger.forget`. A claim that was not settled is given back when another delivery is looked at."""
        self._alive.discard(run_token)

    async def set_aside(self, job_id: JobId, dispatch: int, reason: str) -> bool:
        """See `Ledger.set_aside`: its row becomes unhandled."""
        return await self._store.set_aside(job_id, dispatch, reason)

    async def give_up(self, job: NextJob, reason: str) -> None:
        """See `Ledger.give_up`: its row becomes unhandled."""
        now = self._store.now()
        await self._store.settle(Settlement(job.job_id, job.run_token, Unhandled(reason), now, now, group=job.group))
        self._forgotten.pop(job.run_token, None)

    def _note(self, job: NextJob | None) -> None:
        """Nobody else's delivery asks for it: should its life end in an error of ours, it is given back from here."""
        if job is not None:
            self._forgotten[job.run_token] = job

    async def _give_back_forgotten(self) -> None:
        for token in [token for token in self._forgotten if token not in self._alive]:
            job = self._forgotten.pop(token)
            await self._give_back(job.job_id, token, job.group, republish=True)

    async def _give_back(self, job_id: JobId, forgotten: int, group: str | None, *, republish: bool) -> None:
        """Queue a job again that is claimed here, but that nobody here leads any more: an error of ours ended its life.

        Nobody else would ever do it, as long as this worker lives.
        """
        now = self._store.now()
        interrupted = Settlement(job_id, forgotten, Interrupted(), now, now, republish=republish, group=group)
        await self._store.settle(interrupted)

    async def _write(self, claimed: Claimed, outcome: Outcome, chain: Chain | None) -> Settled:
        settlement = Settlement(
            claimed.command.job_id,
            claimed.run_token,
            outcome,
            claimed.started_at,
            claimed.ended_at or self._store.now(),
            # A delivery in hand is the broker's copy of its own job alone.
            republish=isinstance(outcome, Interrupted) and (claimed.turn.acked or not claimed.is_own),
            group=claimed.claim.group,
            chain=chain,
        )
        try:
            return await self._store.settle(settlement)
        except StoreUnavailableError:
            raise
        except StoreError as error:
            # The database refuses this very outcome (a value that it cannot hold). Left alone, the job would look
            # as if it ran for ever: its outcome becomes that it could not be stored.
            refused = Failed(Failure(error, f"its outcome could not be stored: {escape(str(error))[:500]}"))
            return await self._store.settle(replace(settlement, outcome=refused))


def bury(delivery: Delivery, reason: str, events: Events) -> None:
    """Move a delivery to the dead queue, and tell of it."""
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
