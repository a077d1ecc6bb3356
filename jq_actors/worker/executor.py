"""The life of one job in a worker, from delivery to acknowledgement. Start reading here.

    receive → decode → claim → (drop | hold | park) → run the chain → outcome → settle → ack, or the group's next job

Each verb is a small method, and none of them knows RabbitMQ or SQL: the transport brings a `transport.port.Delivery`,
a `Ledger` writes claims and outcomes, and the actor runs on its own event loop, across the `Bridge`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, assert_never

from jq_actors.clock import Clock
from jq_actors.errors import DecodeError, StoreError, StoreUnavailableError
from jq_actors.events import (
    DeliveryAckedEarly,
    DeliveryDropped,
    Events,
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
from jq_actors.model.claim_rules import Verdict, state_after
from jq_actors.model.command import JobCommand, decode_command, job_id_in
from jq_actors.model.group_rules import GroupRules
from jq_actors.model.outcome import Cancelled, Failed, Interrupted, Outcome, Retrying, Snoozed, Succeeded, Unhandled
from jq_actors.model.running_job import RunnableActor, RunningJob
from jq_actors.model.turn_rules import may_chain
from jq_actors.store.records import Chain, Claim, NextJob
from jq_actors.transport.port import Delivery

from .bridge import Bridge, Crossing
from .ledger import ActiveRun, Ledger, Turn, bury
from .slots import Slot

LOOK_AGAIN_AT_LEAST = timedelta(milliseconds=200)
LOOK_AGAIN_AT_MOST = timedelta(seconds=2)
"""Bounds of the pause before a held delivery is claimed again. The pause is short because the worker that runs the job
may be found dead long before its lease expires."""


class Executor:
    """Takes deliveries from their claim to their acknowledgement; everything here runs on the I/O loop."""

    def __init__(
        self,
        ledger: Ledger,
        bridge: Bridge,
        actors: Mapping[str, RunnableActor],
        rules: GroupRules,
        clock: Clock,
        events: Events,
    ) -> None:
        self._ledger, self._bridge, self._actors, self._rules = ledger, bridge, actors, rules
        self._clock, self._events = clock, events
        self._running: dict[ActiveRun, Crossing] = {}
        self._is_stopping = False

    @property
    def running(self) -> int:
        """How many attempts are in progress."""
        return len(self._running)

    def receive(self, delivery: Delivery) -> JobCommand[Any] | DecodeError:
        """Decode a delivery. The caller passes a delivery that cannot be decoded on to `refuse`."""
        try:
            return _decode(delivery.body, delivery.queue)
        except DecodeError as error:
            return error

    async def refuse(self, delivery: Delivery, error: DecodeError) -> None:
        """Set aside a delivery that cannot be decoded.

        The row of its job records the reason. A delivery without a row goes to the dead queue, with the reason.
        """
        job_id, reason = job_id_in(delivery.body), str(error)
        try:
            is_recorded = job_id is not None and await self._ledger.set_aside(job_id, delivery.dispatch, reason)
        except StoreUnavailableError:
            await self._clock.sleep(LOOK_AGAIN_AT_MOST.total_seconds())
            delivery.requeue()
            return
        except StoreError as refused:
            is_recorded, reason = False, f"{reason}; nor can its row say so: {refused}"
        if job_id is not None and is_recorded:
            delivery.ack()
            self._events.emit(DeliveryDropped(job_id, delivery.queue, "undecodable"))
        else:
            bury(delivery, reason, self._events)

    async def process(self, delivery: Delivery, command: JobCommand[Any], slot: Slot) -> None:
        """Claim and run the job of one delivery, then the jobs of its group that follow it in the same slot.

        The slot is freed as soon as the actor has finished and no job follows, before the outcome is written.
        """
        run = await self._claim(delivery, command, slot)
        while run is not None:
            run = await self._run_and_settle(run, slot)
        slot.free()

    async def _claim(self, delivery: Delivery, command: JobCommand[Any], slot: Slot) -> ActiveRun | None:
        run_token = self._clock.random_bits(63)
        try:
            claim = await self._ledger.claim(delivery, command, run_token, slot.name)
        except StoreUnavailableError:  # the store is closed; an open one waits for its database
            slot.hold(LOOK_AGAIN_AT_MOST)
            return None
        except StoreError as error:
            if command.promised:
                raise
            # The message of another producer, which the database will never accept as a row.
            bury(delivery, str(error), self._events)
            return None
        if claim.verdict is not Verdict.GRANT:
            self._turn_away(delivery, command, claim, slot)
            return None
        turn = Turn(delivery, self._ledger.now(), self._clock.monotonic())
        if claim.instead is not None:
            return await self._follow(turn, claim.instead)
        return ActiveRun(turn, command, claim, run_token, turn.began_at)

    def _turn_away(self, delivery: Delivery, command: JobCommand[Any], claim: Claim, slot: Slot) -> None:
        """Drop, hold or park a delivery whose job does not run now."""
        match claim.verdict:
            case Verdict.HOLD if self._ledger.has_rows and not slot.may_hold:
                # If the worker that runs the job dies, the row brings the job back. This copy only fills the prefetch.
                delivery.ack()
                self._events.emit(DeliveryDropped(command.job_id, delivery.queue, "runs_elsewhere"))
            case Verdict.HOLD:
                again = min(max(claim.look_again, LOOK_AGAIN_AT_LEAST), LOOK_AGAIN_AT_MOST)
                if slot.hold(again):  # report it once, not at each attempt to claim
                    self._events.emit(JobHeld(command.job_id, again.total_seconds()))
            case Verdict.DROP_FINAL | Verdict.DROP_STALE:
                delivery.ack()
                reason = claim.verdict.value.removeprefix("drop_")
                self._events.emit(DeliveryDropped(command.job_id, delivery.queue, reason))
            case Verdict.PARK:
                delivery.ack()
                self._events.emit(JobParked(command.job_id, claim.group or "", claim.reason))
            case Verdict.GRANT | Verdict.TAKE_OVER | Verdict.ADOPT:
                raise AssertionError(f"a ledger carries out {claim.verdict} itself")
            case _:
                assert_never(claim.verdict)

    async def _run_and_settle(self, run: ActiveRun, slot: Slot) -> ActiveRun | None:
        """Run the actor and settle its outcome; returns the run that follows in the group, if there is one."""
        try:
            outcome = await self._run(run)
            run.turn.done += 1
            # The delivery of an interrupted job goes back to the broker: it must not be acked by a job that follows.
            chain = None if isinstance(outcome, Interrupted) else self._chain(run, slot)
            if chain is None:
                slot.free()
            following = await self._settle(run, outcome, chain)
        finally:
            self._ledger.forget(run.run_token)
        if run.again_in is not None:
            slot.hold(run.again_in)
        return None if following is None else await self._follow(run.turn, following)

    def _chain(self, run: ActiveRun, slot: Slot) -> Chain | None:
        """The request that the next job of the group follows here; ``None``: the turn of this group is over."""
        group, turn = run.claim.group, run.turn
        if group is None or not self._ledger.has_rows or not turn.is_safe or not slot.is_open or self._is_stopping:
            return None
        seconds, weight = self._clock.monotonic() - turn.since, self._rules.rule_of(group).weight
        goes_on = may_chain(turn.done, seconds, self._rules.fairness, weight, others_wait=slot.others_wait)
        return Chain(self._clock.random_bits(63), slot.name) if goes_on else None

    async def _follow(self, turn: Turn, job: NextJob) -> ActiveRun | None:
        """The run of ``job``, which is already claimed.

        A job that cannot be decoded blocks its group, and its row says why.
        """
        try:
            command = _decode(job.body, job.queue)
        except DecodeError as error:
            try:
                await self._ledger.mark_unhandled(job, str(error))
            finally:
                self._ledger.forget(job.run_token)
            turn.finish()
            self._events.emit(JobUnhandled(job.job_id, "", job.queue, str(error)))
            return None
        claim = Claim(Verdict.GRANT, job.attempt, job.crashes, group=job.group)
        return ActiveRun(turn, command, claim, job.run_token, self._ledger.now(), is_own=False)

    async def _run(self, run: ActiveRun) -> Outcome:
        if self._is_stopping:
            return Interrupted()
        command = run.command
        group = run.claim.group or command.group
        actor = self._actors.get(command.actor_name)
        job = RunningJob(command.job_id, run.claim.attempt, command, actor, group, command.position)
        waited = run.started_at.timestamp() - (
            command.due_at.timestamp() if command.due_at else command.message_timestamp / 1000
        )
        started = JobStarted(job.id, command.actor_name, command.queue_name, job.attempt, max(waited, 0.0))
        self._events.emit(started)
        crossing = self._bridge.run(job)
        self._running[run] = crossing
        try:
            return await crossing.outcome
        finally:
            run.ended_at = self._ledger.now()
            del self._running[run]

    async def _settle(self, run: ActiveRun, outcome: Outcome, chain: Chain | None) -> NextJob | None:
        try:
            settled = await self._ledger.settle(run, outcome, chain)
        except StoreUnavailableError:  # the store was closed before the database came back
            command = run.command
            self._events.emit(OutcomeLost(command.job_id, command.actor_name, state_after(outcome).value))
            run.turn.requeue()
            return None
        if settled.outcome is not None:
            self._report(run, settled.outcome)
        return settled.next

    def _report(self, run: ActiveRun, outcome: Outcome) -> None:
        command, attempt, queue = run.command, run.claim.attempt, run.command.queue_name
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
        seconds = ((run.ended_at or run.started_at) - run.started_at).total_seconds()
        self._events.emit(JobFinished(job_id, actor, queue, attempt, state_after(outcome).value, seconds))

    # -- long jobs, and the end of the process

    def ack_early(self, older_than: timedelta) -> None:
        """Ack deliveries that are older than ``older_than``, because the broker would soon take them back.

        Only with rows: from then on the lease in the row protects the job (DESIGN §8, A1).
        """
        limit = self._ledger.now() - older_than
        for run in self._running:
            if not run.turn.acked and run.turn.began_at <= limit:
                run.turn.ack_early()
                self._events.emit(DeliveryAckedEarly(run.command.job_id))

    def interrupt_all(self) -> int:
        """Stop every run, because the process shuts down; returns how many there were.

        A job that is granted a claim from now on does not start: it is settled as interrupted.
        """
        self._is_stopping = True
        for crossing in self._running.values():
            self._bridge.interrupt(crossing)
        return len(self._running)


def _decode(body: bytes, queue: str) -> JobCommand[Any]:
    """The command in ``body``, with ``queue`` as its queue.

    Raises:
      DecodeError: ``body`` is not a command.
    """
    command = decode_command(body)
    # A job runs in, and returns to, the queue that delivered it. A moved job may still name its old queue.
    return command if command.queue_name == queue else command.copy(queue_name=queue)
