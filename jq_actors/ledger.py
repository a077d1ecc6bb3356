"""Where claims and outcomes are written: into rows (`persistence`), or nowhere but the broker.

The executor asks a :class:`Ledger` and does not know which. Both make a delivery an attempt, and an outcome durable
*before* the delivery is acknowledged.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol, assert_never

from .clock import Clock
from .command import JobCommand
from .errors import StoreError, StoreUnavailableError
from .events import DeliveryBuried, Events, OutcomeDiscarded, escape
from .job import JobId
from .outcome import Cancelled, Failed, Failure, Interrupted, Outcome, Retrying, Snoozed, Succeeded, Unhandled
from .protocol import Verdict, attempt_counts, state_after
from .store.port import Claim, ClaimRequest, JobStore, NewJob, Settlement
from .transport.port import Delivery, Outgoing, Published, PublishResult

PUBLISH_AGAIN = 1.0
"""Seconds between two tries to publish a job that has to run again."""

REMEMBERED = 10_000
"""Ended jobs of which a copy is recognised; more than acks can be lost at once."""

_Copy = tuple[JobId, int]
"""A job and its dispatch: what two deliveries of one message have in common."""

Publish = Callable[[Sequence[Outgoing]], Awaitable[list[PublishResult]]]


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
    """The delivery was acked early: the row's lease is the safety copy (long jobs)."""

    def finish(self) -> None:
        """Acknowledge the delivery, unless that was done early."""
        if not self.acked:
            self.delivery.ack()

    def give_back(self) -> None:
        """Give the delivery back, unless it was acknowledged early."""
        if not self.acked:
            self.delivery.requeue()


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


class RowLedger:
    """With persistence: rows are the truth, deliveries only carry the news."""

    def __init__(self, store: JobStore, events: Events) -> None:
        self._store, self._events = store, events
        self._alive: set[int] = set()
        """Tokens of the claims that are being made, run or settled here."""

    def now(self) -> datetime:
        """Database time."""
        return self._store.now()

    async def claim(self, delivery: Delivery, command: JobCommand[Any], run_token: int) -> Claim:
        """The row's compare-and-set."""
        now = self._store.now()
        adopt = None if command.promised else new_row(command, delivery.queue, now)
        request = ClaimRequest(command.job_id, delivery.dispatch, run_token, command.promised, adopt)
        self._alive.add(run_token)  # before it may be granted: no other copy must take it for forgotten
        claim = None
        try:
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
        interrupted = isinstance(outcome, Interrupted)
        written = await self._write(claimed, outcome)
        if not written:
            state = state_after(outcome).value
            self._events.emit(OutcomeDiscarded(claimed.command.job_id, claimed.command.actor_name, state))
        if interrupted and written:
            claimed.give_back()
        else:
            claimed.finish()
        return written

    def forget(self, claimed: Claimed) -> None:
        """See `Ledger.forget`. A claim that was not settled is given back when its delivery is looked at again."""
        self._alive.discard(claimed.run_token)

    async def _write(self, claimed: Claimed, outcome: Outcome) -> bool:
        ended_at = claimed.ended_at or self._store.now()
        settlement = Settlement(
            claimed.command.job_id,
            claimed.run_token,
            outcome,
            claimed.started_at,
            ended_at,
            republish=isinstance(outcome, Interrupted) and claimed.acked,
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


class BrokerLedger:
    """Without persistence: every delivery is an attempt, and the broker's copy is the only one.

    What has to run again is published anew and confirmed before the old delivery is acked; what has failed for good,
    or what nobody here can run, is kept in the dead queue with its reason.

    After a lost connection the broker delivers again what runs here, and what has ended and whose ack was lost. Where
    such a copy comes back to this very process it is held or dropped; another process cannot know.
    """

    def __init__(self, publish: Publish, clock: Clock, events: Events) -> None:
        self._publish, self._clock, self._events = publish, clock, events
        self._running: set[_Copy] = set()
        self._ended: dict[_Copy, None] = {}  # in the order of their ends

    def now(self) -> datetime:
        """The machine's time."""
        return self._clock.wall()

    async def claim(self, delivery: Delivery, command: JobCommand[Any], run_token: int) -> Claim:
        """Granted: the broker gives a message to one worker at a time; but for copies of what this one runs, or ran."""
        copy = _copy_of(delivery, command)
        if delivery.redelivered and copy in self._running:
            return Claim(Verdict.HOLD)
        if delivery.redelivered and copy in self._ended:
            return Claim(Verdict.DROP_FINAL)
        self._running.add(copy)
        return Claim(Verdict.GRANT, attempt=command.attempt + 1)

    async def settle(self, claimed: Claimed, outcome: Outcome) -> bool:
        """End the delivery as the outcome says."""
        await self._end(claimed, outcome)
        return True

    def forget(self, claimed: Claimed) -> None:
        """See `Ledger.forget`."""
        self._running.discard(_copy_of(claimed.delivery, claimed.command))

    async def _end(self, claimed: Claimed, outcome: Outcome) -> None:
        match outcome:
            case Succeeded() | Cancelled():
                claimed.delivery.ack()
                self._remember(_copy_of(claimed.delivery, claimed.command))
            case Failed(failure):
                bury(claimed.delivery, failure.error, self._events)
            case Unhandled(reason):
                bury(claimed.delivery, reason, self._events)
            case Interrupted():
                claimed.delivery.requeue()
            case Retrying(_, delay) | Snoozed(delay):
                await self._send_again(claimed, outcome, delay)
            case _:
                assert_never(outcome)

    def _remember(self, ended: _Copy) -> None:
        self._ended[ended] = None
        if len(self._ended) > REMEMBERED:
            del self._ended[next(iter(self._ended))]

    async def _send_again(self, claimed: Claimed, outcome: Outcome, delay: timedelta) -> None:
        command, dispatch = claimed.command, claimed.delivery.dispatch + 1
        attempts = claimed.claim.attempt if attempt_counts(outcome) else claimed.claim.attempt - 1
        again = command.copy(options={"jq": {**command.meta, "attempt": attempts}})
        outgoing = Outgoing(command.job_id, dispatch, claimed.delivery.queue, again.encode(), command.priority, delay)
        # The old copy stays unacked meanwhile: giving it back would run it again without any delay. Once the broker has
        # taken it back all the same, that copy is the next run; a new one would make two of the job.
        while claimed.delivery.is_open:
            if isinstance((await self._publish([outgoing]))[0], Published):
                break
            await self._clock.sleep(PUBLISH_AGAIN)
        claimed.delivery.ack()


def bury(delivery: Delivery, reason: str, events: Events) -> None:
    """Move a delivery to the dead queue, and tell of it."""
    delivery.bury(reason)
    events.emit(DeliveryBuried(delivery.queue, reason))


def _copy_of(delivery: Delivery, command: JobCommand[Any]) -> _Copy:
    return command.job_id, delivery.dispatch


def new_row(command: JobCommand[Any], queue: str, now: datetime) -> NewJob:
    """The row that stands for ``command``."""
    return NewJob(
        id=command.job_id,
        actor=command.actor_name,
        queue=queue,
        body=command.encode(),
        due_at=command.due_at or now,
        enqueued_at=now,
        priority=command.priority,
        tags=command.tags,
    )
