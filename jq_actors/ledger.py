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
from .outcome import Failed, Failure, Interrupted, Outcome, Retrying, Snoozed
from .protocol import Verdict, state_after
from .store.port import JobStore
from .store.records import Claim, ClaimRequest, NewJob, Settlement
from .transport.port import Delivery
from .turns import LONGEST_WAIT


@dataclass(slots=True, eq=False)
class Claimed:
    """A granted claim: what settling it needs."""

    delivery: Delivery
    command: JobCommand[Any]
    claim: Claim
    run_token: int
    started_at: datetime
    ended_at: datetime | None = None
    acked: bool = False
    """The delivery was let go early: the row's lease is the safety copy (long jobs)."""
    is_settled: bool = False
    """Its outcome is written, or was refused."""
    again_in: timedelta | None = None
    """Set when it is settled and the delivery is not ended: ask about it again after that time."""

    def finish(self) -> None:
        """Acknowledge the delivery, unless it was let go early, or is another job's: that one may have its turn now."""
        if self.acked:
            return
        if self.claim.instead is not None:
            self.again_in = timedelta()
        else:
            self.delivery.ack()

    def give_back(self) -> None:
        """Give the delivery back, unless it was let go early."""
        if not self.acked:
            self.delivery.requeue()

    def let_go_early(self) -> None:
        """End the delivery while the job runs: with an ack, or, when it is another job's, by giving it back."""
        if self.claim.instead is None:
            self.finish()
        else:
            self.give_back()
        self.acked = True


class Ledger(Protocol):
    """Makes deliveries attempts, and outcomes durable."""

    def now(self) -> datetime:
        """The time that is written."""
        ...

    async def claim(self, delivery: Delivery, command: JobCommand[Any], run_token: int) -> Claim:
        """Decide over a delivery."""
        ...

    async def settle(self, claimed: Claimed, outcome: Outcome) -> bool:
        """Write the outcome, then end the delivery. ``False``: the claim was lost, nothing was written."""
        ...

    def forget(self, claimed: Claimed) -> None:
        """Its life here is over, whether it was settled or an error of ours ended it."""
        ...

    async def is_blocked(self, group: str, queue: str) -> bool:
        """Whether nothing of ``group`` may start by a lane of ``queue`` now. Does not raise."""
        ...


class RowLedger:
    """With persistence: rows are the truth, deliveries only carry the news.

    Parameters:
      lanes_are_shared: a lane that is left can be offered by another process (`Transport.shared`).
    """

    def __init__(self, store: JobStore, events: Events, *, lanes_are_shared: bool) -> None:
        self._store, self._events, self._lanes_are_shared = store, events, lanes_are_shared
        self._alive: set[int] = set()
        """Tokens of the claims that are being made, run or settled here."""
        self._forgotten: dict[int, JobId] = {}
        """By token: jobs that ran in place of another one, and whose life here an error of ours has ended."""

    def now(self) -> datetime:
        """Database time."""
        return self._store.now()

    async def claim(self, delivery: Delivery, command: JobCommand[Any], run_token: int) -> Claim:
        """The row's compare-and-set."""
        now = self._store.now()
        adopt = None if command.promised else new_row(command, delivery.queue, now)
        request = ClaimRequest(
            command.job_id,
            delivery.dispatch,
            run_token,
            command.promised,
            adopt,
            delivery.queue,
            can_leave=self._lanes_are_shared and delivery.lane is not None and delivery.lane.partition is None,
            group=command.group,
        )
        self._alive.add(run_token)  # before it may be granted: no other copy must take it for forgotten
        claim = None
        try:
            while self._forgotten:
                forgotten, job_id = self._forgotten.popitem()
                await self._give_back(job_id, forgotten, now)
            claim = await self._store.claim(request)
            if claim.own_token is not None and claim.own_token not in self._alive:
                await self._give_back(command.job_id, claim.own_token, now)
                claim = await self._store.claim(request)
            return claim
        finally:
            if claim is None or claim.verdict is not Verdict.GRANT:
                self._alive.discard(run_token)

    async def _give_back(self, job_id: JobId, forgotten: int, now: datetime) -> None:
        """Queue a job again that is claimed here, but that nobody here leads any more: an error of ours ended its life.

        Nobody else would ever do it, as long as this worker lives.
        """
        await self._store.settle(Settlement(job_id, forgotten, Interrupted(), now, now))

    async def settle(self, claimed: Claimed, outcome: Outcome) -> bool:
        """Write under the fence of the run token, then ack, or give back an interrupted job's delivery."""
        stays_for = self._stays_for(claimed, outcome)
        written = await self._write(claimed, outcome, keeps_turn=stays_for is not None)
        claimed.is_settled = True
        if not written:
            state = state_after(outcome).value
            self._events.emit(OutcomeDiscarded(claimed.command.job_id, claimed.command.actor_name, state))
        if written and isinstance(outcome, Interrupted):
            claimed.give_back()
        elif written and stays_for is not None:
            claimed.again_in = stays_for
        else:
            claimed.finish()
        return written

    def forget(self, claimed: Claimed) -> None:
        """See `Ledger.forget`. A claim that was not settled is given back when its delivery is looked at again.

        That delivery asks for its own job; one that ran in its place is remembered until then.
        """
        self._alive.discard(claimed.run_token)
        if claimed.claim.instead is not None and not claimed.is_settled:
            self._forgotten[claimed.run_token] = claimed.claim.instead.job_id

    async def is_blocked(self, group: str, queue: str) -> bool:
        """See `Ledger.is_blocked`. While the database is away nobody can say: a claim waits until it is back."""
        try:
            return not await self._store.has_turn(group, queue)
        except StoreError:
            return False

    def _stays_for(self, claimed: Claimed, outcome: Outcome) -> timedelta | None:
        """How long a job that has to run again keeps its delivery, and with it its turn; ``None``: it does not."""
        group = claimed.claim.group
        if not isinstance(outcome, Retrying | Snoozed) or group is None or outcome.delay > LONGEST_WAIT:
            return None
        has_turn = claimed.delivery.lane is not None and not claimed.acked
        return outcome.delay if has_turn and not self._store.rules.rule_of(group).overtake else None

    async def _write(self, claimed: Claimed, outcome: Outcome, *, keeps_turn: bool) -> bool:
        ended_at = claimed.ended_at or self._store.now()
        settlement = Settlement(
            claimed.command.job_id,
            claimed.run_token,
            outcome,
            claimed.started_at,
            ended_at,
            # The delivery of a job that ran in place of another one is that one's; its own may be anywhere.
            republish=isinstance(outcome, Interrupted) and (claimed.acked or claimed.claim.instead is not None),
            keeps_turn=keeps_turn,
        )
        try:
            return await self._store.settle(settlement)
        except StoreUnavailableError:
            raise
        except StoreError as error:
            # The database refuses this very outcome (a value that it cannot hold). Left alone, the job would look
            # as if it ran for ever: its outcome becomes that it could not be stored.
            refused = Failed(Failure(error, f"its outcome could not be stored: {escape(str(error))[:500]}"))
            return await self._store.settle(replace(settlement, outcome=refused, keeps_turn=False))


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
