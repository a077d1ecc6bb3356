"""The life of one job: each verb, what it tells, and what becomes of the delivery."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from jq_actors.actor import JobActor, actor
from jq_actors.command import decode_command
from jq_actors.errors import StoreError, StoreUnavailableError
from jq_actors.events import (
    DeliveryAckedEarly,
    DeliveryBuried,
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
from jq_actors.executor import LOOK_AGAIN_AT_LEAST, LOOK_AGAIN_AT_MOST, Executor
from jq_actors.ledger import RowLedger
from jq_actors.outcome import Cancelled, Failed, Failure, Interrupted, Outcome, Retrying, Snoozed, Succeeded, Unhandled
from jq_actors.protocol import Verdict
from jq_actors.store.records import Claim, Instead, Settlement
from jq_actors.transport.lane import Lane
from tests.support.clock import FakeClock
from tests.support.lives import START, HandBridge, RecordingDelivery, ScriptedStore, answer, delivery_of
from tests.support.recorder import EventRecorder
from tests.support.sending import RecordingBroker

KINDS = (
    DeliveryAckedEarly,
    DeliveryBuried,
    DeliveryDropped,
    GroupBlocked,
    JobParked,
    JobFailed,
    JobFinished,
    JobHeld,
    JobInterrupted,
    JobRetryScheduled,
    JobStarted,
    JobUnhandled,
    OutcomeLost,
)
GRANT = Claim(Verdict.GRANT, attempt=2)
BROKER = RecordingBroker()


@actor(broker=BROKER)
async def send_mail() -> None: ...


class Life:
    """An executor that leads one delivery; store and bridge do what the test says."""

    def __init__(self) -> None:
        self.store, self.bridge, self.events = ScriptedStore(), HandBridge(), Events()
        self.seen = EventRecorder(self.events, *KINDS)
        self.notes: list[Any] = []
        """Calls of ``hold`` (the time) and of ``ran``, in order."""
        self.is_first_hold = True
        store: Any = self.store
        bridge: Any = self.bridge
        actors: dict[str, JobActor[..., Any]] = {"send_mail": send_mail}
        self.executor = Executor(
            RowLedger(store, self.events, lanes_are_shared=True), bridge, actors, FakeClock(), self.events
        )

    def begin(self, delivery: RecordingDelivery) -> asyncio.Task[None]:
        command = self.executor.receive(delivery)
        assert command is not None
        live = self.executor.live(delivery, command, self._hold, lambda: self.notes.append("ran"))
        return asyncio.create_task(live)

    def _hold(self, time: timedelta) -> bool:
        self.notes.append(time)
        return self.is_first_hold

    async def claimed(self, delivery: RecordingDelivery, claim: Claim | Exception = GRANT) -> asyncio.Task[None]:
        task = self.begin(delivery)
        await settled()
        answer(self.store.claims, 0, claim)
        await settled()
        return task

    async def ended(
        self, delivery: RecordingDelivery, outcome: Outcome, written: bool | Exception = True
    ) -> Settlement:
        task = await self.claimed(delivery)
        self.bridge.end(0, outcome)
        await settled()
        settlement: Settlement = answer(self.store.settles, 0, written)
        await task
        return settlement


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


# -- receive


def test_a_command_is_decoded_and_what_is_none_is_buried() -> None:
    life = Life()
    good, bad = delivery_of("send_mail", 7), RecordingDelivery(b"garbage")
    assert life.executor.receive(good) == decode_command(good.body)
    assert life.executor.receive(bad) is None
    assert bad.endings[0].startswith("bury: not JSON")
    assert life.seen.of(DeliveryBuried)[0].queue == "default"


def test_a_message_that_was_moved_to_another_queue_belongs_there() -> None:
    """Its body still names the old one, where this worker may have no threads, and would not find it again."""
    delivery = delivery_of("send_mail", queue="old", row=True)
    delivery.queue = "new"
    command = Life().executor.receive(delivery)
    assert command is not None
    assert command.queue_name == "new"
    assert decode_command(command.encode()).queue_name == "new"
    assert command.promised
    assert command.job_id == decode_command(delivery.body).job_id


# -- claim


async def test_a_granted_claim_runs_with_its_attempt_and_actor() -> None:
    life, delivery = Life(), delivery_of("send_mail", 7)
    await life.claimed(delivery)
    [crossing] = life.bridge.runs
    assert (crossing.job.attempt, crossing.job.actor) == (2, send_mail)
    assert crossing.job.command == decode_command(delivery.body)
    assert life.executor.running == 1
    assert [event.attempt for event in life.seen.of(JobStarted)] == [2]
    assert life.notes == []


@pytest.mark.parametrize(
    ("look_again", "expected"),
    [(0.0, LOOK_AGAIN_AT_LEAST), (1.0, timedelta(seconds=1)), (30.0, LOOK_AGAIN_AT_MOST)],
)
async def test_a_job_that_runs_elsewhere_is_held(look_again: float, expected: timedelta) -> None:
    life, delivery = Life(), delivery_of("send_mail")
    task = await life.claimed(delivery, Claim(Verdict.HOLD, look_again=timedelta(seconds=look_again)))
    await task
    assert life.notes == [expected, "ran"]
    assert delivery.endings == []
    assert life.seen.of(JobHeld)[0].seconds == expected.total_seconds()
    life.is_first_hold = False
    await (await life.claimed(delivery, Claim(Verdict.HOLD)))
    assert len(life.seen.of(JobHeld)) == 1


@pytest.mark.parametrize(("verdict", "reason"), [(Verdict.DROP_FINAL, "final"), (Verdict.DROP_STALE, "stale")])
async def test_what_need_not_run_is_acked_and_dropped(verdict: Verdict, reason: str) -> None:
    life, delivery = Life(), delivery_of("send_mail")
    await (await life.claimed(delivery, Claim(verdict)))
    assert delivery.endings == ["ack"]
    assert life.notes == ["ran"]
    assert [event.reason for event in life.seen.of(DeliveryDropped)] == [reason]


async def test_a_job_whose_turn_it_is_runs_by_another_ones_delivery_which_is_asked_about_again() -> None:
    life, delivery, other = Life(), delivery_of("send_mail", 7), delivery_of("send_mail", 8)
    delivery.lane = Lane("default", "g")
    command = decode_command(other.body)
    task = await life.claimed(
        delivery, Claim(Verdict.GRANT, 1, group="g", instead=Instead(command.job_id, 4, other.body))
    )
    assert [(run.job.command, run.job.group) for run in life.bridge.runs] == [(command, "g")]
    life.bridge.end(0, Succeeded())
    await settled()
    settlement: Settlement = answer(life.store.settles, 0, True)
    await task
    assert settlement.job_id == command.job_id
    assert life.notes == ["ran", timedelta()]
    assert delivery.endings == []


async def test_a_parked_job_lets_its_delivery_go() -> None:
    life, delivery = Life(), delivery_of("send_mail")
    await life.claimed(delivery, Claim(Verdict.PARK, group="g", reason="position 3 has not been sent"))
    assert delivery.endings == ["ack"]
    assert [(event.group, event.reason) for event in life.seen.of(JobParked)] == [("g", "position 3 has not been sent")]


async def test_the_lane_of_a_blocked_group_is_left() -> None:
    life, delivery = Life(), delivery_of("send_mail")
    delivery.lane = Lane("default", "g")
    await life.claimed(delivery, Claim(Verdict.LEAVE, group="g", reason="paused by ops"))
    assert delivery.endings == ["leave"]
    assert [event.reason for event in life.seen.of(GroupBlocked)] == ["paused by ops"]
    life.store.turns = [True]
    assert delivery.still_blocked is not None
    assert await delivery.still_blocked() is False


async def test_a_claim_at_a_closed_store_lets_the_delivery_wait() -> None:
    life, delivery = Life(), delivery_of("send_mail")
    await (await life.claimed(delivery, StoreUnavailableError("closed")))
    assert life.notes == [LOOK_AGAIN_AT_MOST, "ran"]
    assert delivery.endings == []


async def test_a_foreign_message_that_no_row_can_hold_is_buried_and_our_own_is_not() -> None:
    life, foreign, ours = Life(), delivery_of("send_mail"), delivery_of("send_mail", row=True)
    await (await life.claimed(foreign, StoreError("value too long")))
    assert foreign.endings == ["bury: value too long"]
    with pytest.raises(StoreError):
        await (await life.claimed(ours, StoreError("permission denied")))
    assert ours.endings == []


# -- run and settle


@pytest.mark.parametrize(
    ("outcome", "told", "state"),
    [
        (Succeeded(1), None, "succeeded"),
        (Failed(Failure(None, "broken", "the trace")), JobFailed, "failed"),
        (Retrying(Failure(None, "broken", "the trace"), timedelta(seconds=5)), JobRetryScheduled, "retrying"),
        (Snoozed(timedelta(seconds=5)), None, "retrying"),
        (Cancelled("by somebody"), None, "cancelled"),
        (Unhandled("no such actor"), JobUnhandled, "unhandled"),
        (Interrupted(), JobInterrupted, "queued"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, type | str) else "",
)
async def test_an_outcome_is_written_then_told(outcome: Outcome, told: Any, state: str) -> None:
    life, delivery = Life(), delivery_of("send_mail")
    settlement = await life.ended(delivery, outcome)
    assert settlement.outcome == outcome
    assert [(event.state, event.attempt) for event in life.seen.of(JobFinished)] == [(state, 2)]
    others = [event for event in life.seen.seen if not isinstance(event, JobStarted | JobFinished)]
    assert [type(event) for event in others] == ([] if told is None else [told])
    assert delivery.endings == ["requeue" if isinstance(outcome, Interrupted) else "ack"]
    assert life.executor.running == 0


async def test_the_slot_is_given_back_before_the_outcome_is_written() -> None:
    life, delivery = Life(), delivery_of("send_mail")
    task = await life.claimed(delivery)
    life.store.advance(timedelta(seconds=3))
    life.bridge.end(0, Succeeded())
    await settled()
    assert life.notes == ["ran"]
    assert delivery.endings == []
    life.store.advance(timedelta(seconds=60))  # the database is slow
    settlement: Settlement = answer(life.store.settles, 0, True)
    await task
    assert (settlement.started_at, settlement.finished_at) == (START, START + timedelta(seconds=3))
    assert life.seen.of(JobFinished)[0].run_seconds == 3


async def test_an_outcome_that_lost_its_claim_is_not_told_as_the_job_s() -> None:
    life, delivery = Life(), delivery_of("send_mail")
    await life.ended(delivery, Succeeded(), written=False)
    assert life.seen.of(JobFinished) == []
    assert delivery.endings == ["ack"]


@pytest.mark.parametrize("acked", [False, True], ids=["held", "acked early"])
async def test_an_outcome_that_cannot_be_written_before_the_end_is_told_and_the_job_given_back(acked: bool) -> None:
    life, delivery = Life(), delivery_of("send_mail")
    task = await life.claimed(delivery)
    if acked:
        life.executor.ack_early(timedelta())
    life.bridge.end(0, Succeeded())
    await settled()
    answer(life.store.settles, 0, StoreUnavailableError("closed"))
    await task
    assert delivery.endings == ["ack" if acked else "requeue"]
    assert [event.state for event in life.seen.of(OutcomeLost)] == ["succeeded"]
    assert life.seen.of(JobFinished) == []


# -- long jobs, and the end


async def test_only_long_runs_are_acked_early_and_only_once() -> None:
    life, long, short = Life(), delivery_of("send_mail", 1), delivery_of("send_mail", 2)
    await life.claimed(long)
    life.store.advance(timedelta(seconds=60))
    await life.claimed(short)
    for _ in range(2):
        life.executor.ack_early(timedelta(seconds=30))
    assert (long.endings, short.endings) == (["ack"], [])
    assert len(life.seen.of(DeliveryAckedEarly)) == 1


@pytest.mark.parametrize("outcome", [Succeeded(), Interrupted()], ids=["succeeded", "interrupted"])
async def test_a_run_that_was_acked_early_is_not_acked_again(outcome: Outcome) -> None:
    life, delivery = Life(), delivery_of("send_mail")
    task = await life.claimed(delivery)
    life.executor.ack_early(timedelta())
    life.bridge.end(0, outcome)
    await settled()
    settlement: Settlement = answer(life.store.settles, 0, True)
    await task
    assert delivery.endings == ["ack"]
    assert settlement.republish is isinstance(outcome, Interrupted), "no copy is left: the relay has to publish it"


async def test_at_the_end_runs_are_interrupted_and_what_is_granted_later_does_not_begin() -> None:
    """The database was away: a claim comes back when everything else has ended."""
    life, running, late = Life(), delivery_of("send_mail", 1), delivery_of("send_mail", 2)
    await life.claimed(running)
    claiming = life.begin(late)
    await settled()
    assert life.executor.interrupt_all() == 1
    assert life.bridge.runs[0].interrupted
    answer(life.store.claims, 0, GRANT)
    await settled()
    assert len(life.bridge.runs) == 1
    settlement: Settlement = answer(life.store.settles, 0, True)
    await claiming
    assert settlement.outcome == Interrupted()
    assert late.endings == ["requeue"]
    assert len(life.seen.of(JobStarted)) == 1
