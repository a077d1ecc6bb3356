"""The life of one job: each verb, what it tells, and what becomes of the delivery."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from jq_actors.errors import DecodeError, StoreError, StoreUnavailableError
from jq_actors.events import (
    DeliveryAckedEarly,
    DeliveryBuried,
    DeliveryDropped,
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
from jq_actors.model.claim_rules import Verdict
from jq_actors.model.command import JobCommand, decode_command
from jq_actors.model.outcome import (
    Cancelled,
    Failed,
    Failure,
    Interrupted,
    Outcome,
    Retrying,
    Snoozed,
    Succeeded,
    Unhandled,
)
from jq_actors.store.records import Claim, Settlement
from jq_actors.worker.executor import LOOK_AGAIN_AT_LEAST, LOOK_AGAIN_AT_MOST
from tests.support.executing import GRANT, Life, send_mail
from tests.support.lives import CLAIM_LOST, START, WRITTEN, RecordingDelivery, answer, delivery_of, settled

# -- receive


def test_a_command_is_decoded_and_what_is_none_says_why() -> None:
    life = Life()
    good, bad = delivery_of("send_mail", 7), RecordingDelivery(b"garbage")
    assert life.executor.receive(good) == decode_command(good.body)
    error = life.executor.receive(bad)
    assert isinstance(error, DecodeError)
    assert str(error).startswith("not JSON")
    assert bad.endings == []


def test_a_message_that_was_moved_to_another_queue_belongs_there() -> None:
    """Its body still names the old one, where this worker may have no threads, and would not find it again."""
    delivery = delivery_of("send_mail", queue="old", row=True)
    delivery.queue = "new"
    command = Life().executor.receive(delivery)
    assert isinstance(command, JobCommand)
    assert command.queue_name == "new"
    assert decode_command(command.encode()).queue_name == "new"
    assert command.promised
    assert command.job_id == decode_command(delivery.body).job_id


# -- refuse


NO_COMMAND = b'{"message_id": "01890a5d-ac96-774b-bcce-b302099a8057", "actor_name": "of a foreign producer"}'


async def refused(life: Life, delivery: RecordingDelivery, known: bool | Exception) -> Any:
    """Refuse it; what was asked of the store."""
    error = life.executor.receive(delivery)
    assert isinstance(error, DecodeError)
    task = asyncio.create_task(life.executor.refuse(delivery, error))
    await settled()
    asked = answer(life.store.set_asides, 0, known)
    await settled()
    if isinstance(known, StoreUnavailableError):
        assert delivery.endings == []
        await life.clock.advance(LOOK_AGAIN_AT_MOST.total_seconds())
    await task
    return asked


async def test_what_cannot_be_decoded_and_has_a_row_is_set_aside_there() -> None:
    life, delivery = Life(), RecordingDelivery(NO_COMMAND, dispatch=3)
    job_id, dispatch, reason = await refused(life, delivery, True)
    assert (job_id, dispatch) == ("01890a5d-ac96-774b-bcce-b302099a8057", 3)
    assert reason == str(life.executor.receive(delivery))
    assert delivery.endings == ["ack"]
    assert [(event.job_id, event.reason) for event in life.seen.of(DeliveryDropped)] == [(job_id, "undecodable")]


async def test_what_cannot_be_decoded_and_has_no_row_is_buried() -> None:
    life, unknown, nameless = Life(), RecordingDelivery(NO_COMMAND), RecordingDelivery(b"garbage")
    _, _, reason = await refused(life, unknown, False)
    assert unknown.endings == [f"bury: {reason}"]
    error = life.executor.receive(nameless)
    assert isinstance(error, DecodeError)
    await life.executor.refuse(nameless, error)
    assert nameless.endings == [f"bury: {error}"]
    assert [event.queue for event in life.seen.of(DeliveryBuried)] == ["default"] * 2


async def test_what_cannot_be_decoded_nor_set_aside_is_buried_with_both_reasons() -> None:
    life, delivery = Life(), RecordingDelivery(NO_COMMAND)
    _, _, reason = await refused(life, delivery, StoreError("integer out of range"))
    assert delivery.endings == [f"bury: {reason}; nor can its row say so: integer out of range"]


async def test_what_cannot_be_decoded_is_given_back_when_the_store_is_closed() -> None:
    life, delivery = Life(), RecordingDelivery(NO_COMMAND)
    await refused(life, delivery, StoreUnavailableError("closed"))
    assert delivery.endings == ["requeue"]


# -- claim


async def test_a_granted_claim_runs_with_its_attempt_and_actor() -> None:
    life, delivery = Life(), delivery_of("send_mail", 7)
    await life.claimed(delivery)
    [crossing] = life.bridge.runs
    assert (crossing.job.attempt, crossing.job.actor) == (2, send_mail)
    assert crossing.job.command == decode_command(delivery.body)
    assert life.executor.running == 1
    assert [event.attempt for event in life.seen.of(JobStarted)] == [2]
    assert life.slot.told == []


@pytest.mark.parametrize(
    ("look_again", "expected"),
    [(0.0, LOOK_AGAIN_AT_LEAST), (1.0, timedelta(seconds=1)), (30.0, LOOK_AGAIN_AT_MOST)],
)
async def test_a_job_that_runs_elsewhere_is_held(look_again: float, expected: timedelta) -> None:
    life, delivery = Life(), delivery_of("send_mail")
    task = await life.claimed(delivery, Claim(Verdict.HOLD, look_again=timedelta(seconds=look_again)))
    await task
    assert life.slot.told == [expected, "freed"]
    assert delivery.endings == []
    assert life.seen.of(JobHeld)[0].seconds == expected.total_seconds()
    life.slot.is_first_hold = False
    await (await life.claimed(delivery, Claim(Verdict.HOLD)))
    assert len(life.seen.of(JobHeld)) == 1


@pytest.mark.parametrize(("verdict", "reason"), [(Verdict.DROP_FINAL, "final"), (Verdict.DROP_STALE, "stale")])
async def test_what_need_not_run_is_acked_and_dropped(verdict: Verdict, reason: str) -> None:
    life, delivery = Life(), delivery_of("send_mail")
    await (await life.claimed(delivery, Claim(verdict)))
    assert delivery.endings == ["ack"]
    assert life.slot.told == ["freed"]
    assert [event.reason for event in life.seen.of(DeliveryDropped)] == [reason]


async def test_a_parked_job_lets_its_delivery_go() -> None:
    life, delivery = Life(), delivery_of("send_mail")
    await life.claimed(delivery, Claim(Verdict.PARK, group="g", reason="position 3 has not been sent"))
    assert delivery.endings == ["ack"]
    assert [(event.group, event.reason) for event in life.seen.of(JobParked)] == [("g", "position 3 has not been sent")]


async def test_a_claim_at_a_closed_store_lets_the_delivery_wait() -> None:
    life, delivery = Life(), delivery_of("send_mail")
    await (await life.claimed(delivery, StoreUnavailableError("closed")))
    assert life.slot.told == [LOOK_AGAIN_AT_MOST, "freed"]
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
    assert life.slot.told == ["freed"]
    assert delivery.endings == []
    life.store.advance(timedelta(seconds=60))  # the database is slow
    settlement: Settlement = answer(life.store.settles, 0, WRITTEN)
    await task
    assert (settlement.started_at, settlement.finished_at) == (START, START + timedelta(seconds=3))
    assert life.seen.of(JobFinished)[0].run_seconds == 3


async def test_an_outcome_that_lost_its_claim_is_not_told_as_the_job_s() -> None:
    life, delivery = Life(), delivery_of("send_mail")
    await life.ended(delivery, Succeeded(), written=CLAIM_LOST)
    assert life.seen.of(JobFinished) == []
    assert delivery.endings == ["ack"]


async def test_an_outcome_that_the_database_refuses_is_told_as_what_it_became() -> None:
    life, delivery = Life(), delivery_of("send_mail")
    task = await life.claimed(delivery)
    await life.run_ends(Succeeded("x"))
    answer(life.store.settles, 0, StoreError("too large"))
    await settled()
    answer(life.store.settles, 0, WRITTEN)
    await task
    assert [event.state for event in life.seen.of(JobFinished)] == ["failed"]
    assert "too large" in life.seen.of(JobFailed)[0].error


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
    settlement: Settlement = answer(life.store.settles, 0, WRITTEN)
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
    settlement: Settlement = answer(life.store.settles, 0, WRITTEN)
    await claiming
    assert settlement.outcome == Interrupted()
    assert late.endings == ["requeue"]
    assert len(life.seen.of(JobStarted)) == 1
