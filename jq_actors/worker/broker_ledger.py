"""The ledger without persistence: only the broker stores anything."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar, assert_never

from jq_actors.clock import Clock
from jq_actors.events import Events
from jq_actors.model.claim_rules import Verdict, attempt_counts
from jq_actors.model.command import JobCommand
from jq_actors.model.group_rules import GroupRules
from jq_actors.model.job import JobId
from jq_actors.model.outcome import Cancelled, Failed, Interrupted, Outcome, Retrying, Snoozed, Succeeded, Unhandled
from jq_actors.store.records import Chain, Claim, NextJob
from jq_actors.transport.port import Delivery, Outgoing, Published, PublishResult

from .ledger import ActiveRun, SettledRun, bury

PUBLISH_AGAIN = 1.0
"""Seconds between two tries to publish a job that has to run again."""

LONGEST_PAUSE = timedelta(days=600)
"""How long a broker can hold a message back, and a little less: it would refuse a longer one again and again."""

REMEMBERED = 10_000
"""Ended jobs of which a copy is recognised; more than acks can be lost at once."""

_Copy = tuple[JobId, int]
"""A job and its dispatch: what two deliveries of one message have in common."""

Publish = Callable[[Sequence[Outgoing]], Awaitable[list[PublishResult]]]


class BrokerLedger:
    """Without persistence: every delivery is an attempt, and the broker's copy is the only one.

    A job that has to run again is published anew and confirmed before the old delivery is acked; a job that
    failed for good, or that cannot run here, is kept in the dead queue with its reason.

    After a lost connection the broker delivers again what runs here, and what has ended and whose ack was lost. Where
    such a copy comes back to this very process it is held or dropped; another process cannot know.

    In a group what has to run again keeps its place: its delivery stays in hand meanwhile, and with it its lane.
    """

    has_rows = False

    def __init__(self, publish: Publish, rules: GroupRules, clock: Clock, events: Events) -> None:
        self._publish, self._rules, self._clock, self._events = publish, rules, clock, events
        self._running: set[_Copy] = set()
        self._runs: dict[int, _Copy] = {}
        self._ended: dict[_Copy, None] = {}  # in the order of their ends
        self._again: dict[_Copy, _Again] = {}  # in the order of their first ends

    def now(self) -> datetime:
        """The machine's time."""
        return self._clock.wall()

    async def claim(self, delivery: Delivery, command: JobCommand[Any], run_token: int, slot: str) -> Claim:
        """Grant, unless it copies a job that runs or ran here: the broker gives a message to one worker at a time."""
        copy = _copy_of(delivery, command)
        if delivery.redelivered and copy in self._running:
            return Claim(Verdict.HOLD)
        if delivery.redelivered and copy in self._ended:
            return Claim(Verdict.DROP_FINAL)
        if command.group is not None and delivery.lane is None:
            return await self._to_its_lane(delivery, command, command.group)
        again = self._again.get(copy, _Again(command.attempt, 0.0))
        if again.at > self._clock.monotonic():
            return Claim(Verdict.HOLD, look_again=timedelta(seconds=again.at - self._clock.monotonic()))
        self._running.add(copy)
        self._runs[run_token] = copy
        return Claim(Verdict.GRANT, attempt=again.attempts + 1, group=command.group)

    async def settle(self, run: ActiveRun, outcome: Outcome, chain: Chain | None) -> SettledRun:
        """End the delivery as the outcome says. The next of a group comes by its lane."""
        await self._end(run, outcome)
        return SettledRun(outcome)

    def forget(self, run_token: int) -> None:
        """Accept copies of that run's message again."""
        copy = self._runs.pop(run_token, None)
        if copy is not None:
            self._running.discard(copy)

    async def requeue_forgotten(self) -> None:
        """Do nothing: the delivery of a forgotten run is still in hand, and the intake offers it again."""

    async def set_aside(self, job_id: JobId, dispatch: int, reason: str) -> bool:
        """``False``: without rows, no job is known."""
        return False

    async def mark_unhandled(self, job: NextJob, reason: str) -> None:
        """Cannot happen: only the job of a delivery is ever granted."""
        raise AssertionError(f"job {job.job_id} was granted without a row")

    async def _to_its_lane(self, delivery: Delivery, command: JobCommand[Any], group: str) -> Claim:
        """Its delay is over, or another producer knows no lanes: it came by the plain queue and goes to its place."""
        lane = self._rules.lane_of(delivery.queue, group)
        dispatch = delivery.dispatch + 1
        outgoing = Outgoing(command.job_id, dispatch, delivery.queue, command.encode(), lane=lane, group=group)
        if isinstance((await self._publish([outgoing]))[0], Published):
            return Claim(Verdict.PARK, group=group, reason="it takes its place in its lane")
        return Claim(Verdict.HOLD)

    async def _end(self, run: ActiveRun, outcome: Outcome) -> None:
        copy = _copy_of(run.delivery, run.command)
        if not isinstance(outcome, Retrying | Snoozed | Interrupted):
            self._again.pop(copy, None)
        match outcome:
            case Succeeded() | Cancelled():
                run.delivery.ack()
                _remember(self._ended, copy, None)
            case Failed(failure):
                bury(run.delivery, failure.error, self._events)
            case Unhandled(reason):
                bury(run.delivery, reason, self._events)
            case Interrupted():
                run.delivery.requeue()
            case Retrying(_, delay) | Snoozed(delay):
                attempts = run.claim.attempt if attempt_counts(outcome) else run.claim.attempt - 1
                group = run.command.group
                if run.delivery.lane is None or group is None or self._rules.rule_of(group).overtake:
                    await self._send_again(run, attempts, delay)
                else:
                    at = self._clock.monotonic() + delay.total_seconds()
                    _remember(self._again, copy, _Again(attempts, at))
                    run.again_in = delay
            case _:
                assert_never(outcome)

    async def _send_again(self, run: ActiveRun, attempts: int, delay: timedelta) -> None:
        if delay > LONGEST_PAUSE:
            reason = (
                f"it is to run again after {delay.days} days; without persistence {LONGEST_PAUSE.days} are possible"
            )
            bury(run.delivery, reason, self._events)
            return
        command, dispatch = run.command, run.delivery.dispatch + 1
        again = command.copy(options={"jq": {**command.meta, "attempt": attempts}})
        outgoing = Outgoing(command.job_id, dispatch, run.delivery.queue, again.encode(), command.priority, delay)
        # The old copy stays unacked meanwhile: giving it back would run it again without any delay. If the broker
        # takes it back anyway, that copy is the next run, and a new one would make two of the job.
        while run.delivery.is_open:
            if isinstance((await self._publish([outgoing]))[0], Published):
                break
            await self._clock.sleep(PUBLISH_AGAIN)
        run.delivery.ack()


@dataclass(frozen=True, slots=True)
class _Again:
    """A job of a group that has to run again."""

    attempts: int
    """The attempts that counted."""
    at: float
    """When, by the monotonic clock."""


V = TypeVar("V")


def _remember(copies: dict[_Copy, V], copy: _Copy, value: V) -> None:
    copies[copy] = value
    if len(copies) > REMEMBERED:
        del copies[next(iter(copies))]


def _copy_of(delivery: Delivery, command: JobCommand[Any]) -> _Copy:
    return command.job_id, delivery.dispatch
