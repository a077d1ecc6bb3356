"""THE life of one job in a worker. Start reading here.

    receive → decode → claim → (drop | hold | park | leave) → run the chain → outcome → settle → ack

Each verb is a small method. None of them knows RabbitMQ or SQL: a delivery is a `transport.port.Delivery`, claims and
outcomes are written by a `Ledger`, the actor runs on the other side of the `Bridge`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, assert_never

from .bridge import Bridge, Crossing
from .clock import Clock
from .command import JobCommand, decode_command
from .current import RunningJob
from .errors import DecodeError, StoreError, StoreUnavailableError
from .events import (
    DeliveryAckedEarly,
    DeliveryDropped,
    Events,
    GroupBlocked,
    JobFailed,
    JobFinished,
    JobHeld,
    JobInterrupted,
    JobParked,
    JobRetryScheduled,
    JobStarted,
    JobUnhandled,
    OutcomeLost,
)
from .ledger import Claimed, Ledger, bury
from .outcome import Cancelled, Failed, Interrupted, Outcome, Retrying, Snoozed, Succeeded, Unhandled
from .protocol import Verdict, state_after
from .store.records import Claim
from .transport.port import Delivery

if TYPE_CHECKING:
    from .actor import JobActor

LOOK_AGAIN_AT_LEAST = timedelta(milliseconds=200)
LOOK_AGAIN_AT_MOST = timedelta(seconds=2)
"""A held delivery is looked at in between: its owner may be found dead long before its lease is over."""

HoldFor = Callable[[timedelta], bool]


class Executor:
    """Leads deliveries through their life; everything here runs on the I/O loop."""

    def __init__(
        self,
        ledger: Ledger,
        bridge: Bridge,
        actors: Mapping[str, JobActor[..., Any]],
        clock: Clock,
        events: Events,
    ) -> None:
        self._ledger, self._bridge, self._actors = ledger, bridge, actors
        self._clock, self._events = clock, events
        self._running: dict[Claimed, Crossing] = {}
        self._is_stopping = False

    @property
    def running(self) -> int:
        """How many attempts are in progress."""
        return len(self._running)

    def receive(self, delivery: Delivery) -> JobCommand[Any] | None:
        """Decode a delivery; what is no command goes to the dead queue, with the reason, and is ``None``."""
        try:
            command = decode_command(delivery.body)
        except DecodeError as error:
            bury(delivery, str(error), self._events)
            return None
        # It runs where it came from, and comes back there; one that was moved here may still name its old queue.
        return command if command.queue_name == delivery.queue else command.copy(queue_name=delivery.queue)

    async def live(self, delivery: Delivery, command: JobCommand[Any], hold: HoldFor, ran: Callable[[], None]) -> None:
        """Lead one delivery from its claim to its end.

        ``hold(time)`` is called instead of running when the job runs elsewhere: offer the delivery again after that
        time; it returns whether this is the first time. ``ran()`` is called when the actor has ended and its slot is
        free, before the outcome is written.
        """
        claimed = await self._claim(delivery, command, hold)
        if claimed is None:
            ran()
            return
        try:
            outcome = await self._run(claimed)
            ran()
            await self._settle(claimed, outcome)
        finally:
            self._ledger.forget(claimed)
        if claimed.again_in is not None:
            hold(claimed.again_in)

    async def _claim(self, delivery: Delivery, command: JobCommand[Any], hold: HoldFor) -> Claimed | None:
        run_token = self._clock.random_bits(63)
        try:
            claim = await self._ledger.claim(delivery, command, run_token)
        except StoreUnavailableError:  # closed; as long as it is open, the store itself waits for its database
            hold(LOOK_AGAIN_AT_MOST)
            return None
        except StoreError as error:
            if command.promised:
                raise
            # A message of somebody else, of which the database can never make a row.
            bury(delivery, str(error), self._events)
            return None
        if claim.verdict is Verdict.GRANT:
            ran = command if claim.instead is None else decode_command(claim.instead.body)
            return Claimed(delivery, ran, claim, run_token, self._ledger.now())
        self._turn_away(delivery, command, claim, hold)
        return None

    def _turn_away(self, delivery: Delivery, command: JobCommand[Any], claim: Claim, hold: HoldFor) -> None:
        """What becomes of a delivery that is not run."""
        match claim.verdict:
            case Verdict.HOLD:
                again = min(max(claim.look_again, LOOK_AGAIN_AT_LEAST), LOOK_AGAIN_AT_MOST)
                if hold(again):  # told once, not at each look
                    self._events.emit(JobHeld(command.job_id, again.total_seconds()))
            case Verdict.DROP_FINAL | Verdict.DROP_STALE:
                delivery.ack()
                reason = claim.verdict.value.removeprefix("drop_")
                self._events.emit(DeliveryDropped(command.job_id, delivery.queue, reason))
            case Verdict.PARK:
                delivery.ack()
                self._events.emit(JobParked(command.job_id, claim.group or "", claim.reason))
            case Verdict.LEAVE:
                self._leave(delivery, claim)
            case Verdict.GRANT | Verdict.TAKE_OVER | Verdict.ADOPT | Verdict.TURN:
                raise AssertionError(f"a ledger carries out {claim.verdict} itself")
            case _:
                assert_never(claim.verdict)

    def _leave(self, delivery: Delivery, claim: Claim) -> None:
        """Nothing of its group may run for long: its lane's place in this worker is for others."""
        assert claim.group is not None
        self._events.emit(GroupBlocked(claim.group, delivery.queue, claim.reason))
        delivery.leave(partial(self._ledger.is_blocked, claim.group, delivery.queue))

    async def _run(self, claimed: Claimed) -> Outcome:
        if self._is_stopping:
            return Interrupted()
        command = claimed.command
        group = claimed.claim.group or command.group
        actor = self._actors.get(command.actor_name)
        job = RunningJob(command.job_id, claimed.claim.attempt, command, actor, group, command.position)
        waited = claimed.started_at.timestamp() - (
            command.due_at.timestamp() if command.due_at else command.message_timestamp / 1000
        )
        queue = claimed.delivery.queue
        self._events.emit(JobStarted(job.id, command.actor_name, queue, job.attempt, max(waited, 0.0)))
        crossing = self._bridge.run(job)
        self._running[claimed] = crossing
        try:
            return await crossing.outcome
        finally:
            claimed.ended_at = self._ledger.now()
            del self._running[claimed]

    async def _settle(self, claimed: Claimed, outcome: Outcome) -> None:
        try:
            written = await self._ledger.settle(claimed, outcome)
        except StoreUnavailableError:  # closed before the database came back
            command = claimed.command
            self._events.emit(OutcomeLost(command.job_id, command.actor_name, state_after(outcome).value))
            claimed.give_back()
            return
        if written:
            self._tell(claimed, outcome)

    def _tell(self, claimed: Claimed, outcome: Outcome) -> None:
        command, attempt, queue = claimed.command, claimed.claim.attempt, claimed.delivery.queue
        job_id, actor = command.job_id, command.actor_name
        match outcome:
            case Failed(failure):
                self._events.emit(JobFailed(job_id, actor, queue, attempt, failure.error, failure.traceback))
            case Retrying(failure, delay):
                seconds = delay.total_seconds()
                self._events.emit(
                    JobRetryScheduled(job_id, actor, queue, attempt, seconds, failure.error, failure.traceback)
                )
            case Unhandled(reason):
                self._events.emit(JobUnhandled(job_id, actor, queue, reason))
            case Interrupted():
                self._events.emit(JobInterrupted(job_id, actor, queue))
            case Succeeded() | Snoozed() | Cancelled():
                pass
            case _:
                assert_never(outcome)
        seconds = ((claimed.ended_at or claimed.started_at) - claimed.started_at).total_seconds()
        self._events.emit(JobFinished(job_id, actor, queue, attempt, state_after(outcome).value, seconds))

    # -- long jobs, and the end of the process

    def ack_early(self, older_than: timedelta) -> None:
        """Ack the deliveries of attempts that have run so long that the broker would soon take them away.

        Only with rows: from then on the lease in the row is the job's safety copy (DESIGN §8, A1).
        """
        limit = self._ledger.now() - older_than
        for claimed in self._running:
            if not claimed.acked and claimed.started_at <= limit:
                claimed.let_go_early()
                self._events.emit(DeliveryAckedEarly(claimed.command.job_id))

    def interrupt_all(self) -> int:
        """Stop every run, because the process has to end; returns how many there were.

        What is granted a claim from now on does not begin: it is settled as interrupted.
        """
        self._is_stopping = True
        for crossing in self._running.values():
            self._bridge.interrupt(crossing)
        return len(self._running)
