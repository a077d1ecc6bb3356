"""In a group one job follows another in the same slot, on one delivery, until its turn is over."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from jq_actors.actors.actor import JobActor
from jq_actors.errors import StoreError, StoreUnavailableError
from jq_actors.events import DeliveryAckedEarly, JobFinished, JobInterrupted, JobStarted, JobUnhandled, TaskFailed
from jq_actors.model.claim_rules import Verdict
from jq_actors.model.command import decode_command
from jq_actors.model.group_rules import GroupRule, GroupRules
from jq_actors.model.lane import Fairness, Lane
from jq_actors.model.outcome import Failed, Failure, Interrupted, Outcome, Retrying, Succeeded, Unhandled
from jq_actors.model.turn_rules import SHARE_AFTER
from jq_actors.store.records import Claim, ClaimRequest, NextJob, Settled, Settlement
from jq_actors.worker.broker_ledger import BrokerLedger
from jq_actors.worker.executor import Executor
from tests.support.executing import Life, send_mail
from tests.support.lives import CLAIM_LOST, WRITTEN, RecordingDelivery, answer, delivery_of, next_job, settled

IN_GROUP = Claim(Verdict.GRANT, attempt=1, group="g")
NO_COMMAND = b'{"no": "command"}'


def in_group(number: int = 1) -> RecordingDelivery:
    return delivery_of("send_mail", number, row=True, group="g")


def rules(quantum: int = 50, time_slice: float = 1.0, weight: int = 1) -> GroupRules:
    fairness = Fairness(quantum=quantum, time_slice=timedelta(seconds=time_slice))
    return GroupRules((GroupRule("g", weight=weight),), fairness)


async def go_on(life: Life, outcome: Outcome | None = None, **of_next: Any) -> tuple[Settlement, NextJob]:
    """End the run; the store lets another job follow, by the token that it was asked for."""
    await life.run_ends(outcome or Succeeded())
    [asked] = life.store.settles
    assert asked.what.chain is not None, "the turn is over"
    job = next_job(**{"body": in_group(2).body, "token": asked.what.chain.run_token, **of_next})
    settlement: Settlement = answer(life.store.settles, 0, Settled(written=True, next=job))
    await settled()
    return settlement, job


# -- what follows


async def test_the_next_job_follows_in_the_same_slot_on_the_same_delivery() -> None:
    life, delivery = Life(), in_group()
    task = await life.claimed(delivery, IN_GROUP)
    first, job = await go_on(life, attempt=3)
    assert first.chain is not None
    assert (first.group, first.chain.slot) == ("g", life.slot.name)
    [crossing] = life.bridge.runs
    assert (crossing.job.id, crossing.job.attempt, crossing.job.group) == (job.job_id, 3, "g")
    assert crossing.job.command == decode_command(job.body)
    assert (life.slot.told, delivery.endings) == ([], []), "slot and delivery are let go too early"

    second = await life.end(Succeeded())
    await task
    assert (second.job_id, second.run_token, second.group) == (job.job_id, first.chain.run_token, "g")
    assert second.chain is not None
    assert second.chain.run_token not in (first.run_token, first.chain.run_token)
    assert (life.slot.told, delivery.endings) == (["freed"], ["ack"])
    assert [event.attempt for event in life.seen.of(JobStarted)] == [1, 3]
    assert [event.job_id for event in life.seen.of(JobFinished)] == [first.job_id, job.job_id]


async def test_it_runs_by_the_queue_that_its_row_names() -> None:
    life, delivery = Life(), in_group()
    await life.claimed(delivery, IN_GROUP)
    await go_on(life, queue="moved")
    assert life.bridge.runs[0].job.command.queue_name == "moved"


@pytest.mark.parametrize(
    "outcome", [Failed(Failure(None, "broken")), Retrying(Failure(None, "broken"), timedelta(seconds=1))], ids=str
)
async def test_it_follows_however_the_one_before_it_ended(outcome: Outcome) -> None:
    life, delivery = Life(), in_group()
    await life.claimed(delivery, IN_GROUP)
    settlement, _ = await go_on(life, outcome)
    assert settlement.outcome == outcome
    assert len(life.bridge.runs) == 1


async def test_it_follows_also_where_the_claim_of_the_one_before_it_was_lost_and_nothing_does() -> None:
    life, delivery = Life(), in_group()
    task = await life.claimed(delivery, IN_GROUP)
    await life.end(Succeeded(), CLAIM_LOST)
    await task
    assert (life.slot.told, delivery.endings, life.bridge.runs) == (["freed"], ["ack"], [])


async def test_a_job_without_a_group_asks_for_nobody() -> None:
    life = Life()
    settlement = await life.ended(delivery_of("send_mail"), Succeeded())
    assert settlement.chain is None


async def test_a_chain_whose_worker_was_lost_goes_on_by_the_delivery_that_began_it() -> None:
    life, delivery, other = Life(), in_group(1), in_group(2)
    delivery.redelivered = True
    task = life.begin(delivery)
    await settled()
    [asked] = life.store.claims
    job = next_job(other.body, asked.what.run_token, attempt=2)
    request: ClaimRequest = answer(life.store.claims, 0, Claim(Verdict.GRANT, 2, instead=job, group="g"))
    await settled()
    assert request.redelivered
    assert [(run.job.command, run.job.attempt, run.job.group) for run in life.bridge.runs] == [
        (decode_command(other.body), 2, "g")
    ]
    settlement = await life.end(Succeeded())
    await task
    assert (settlement.job_id, settlement.run_token) == (job.job_id, request.run_token)
    assert (life.slot.told, delivery.endings) == (["freed"], ["ack"])


# -- when a turn is over


async def follows(life: Life, delivery: RecordingDelivery) -> bool:
    """End the run, and answer that nobody follows. Whether somebody was asked for, and the slot kept meanwhile."""
    await life.run_ends(Succeeded())
    settlement: Settlement = answer(life.store.settles, 0, WRITTEN)
    assert (life.slot.told == []) is (settlement.chain is not None), "the slot is kept for nobody, or given away"
    assert delivery.endings == []
    await settled()
    assert life.slot.told == ["freed"]
    return settlement.chain is not None


@pytest.mark.parametrize(("quantum", "weight", "jobs"), [(1, 1, 1), (3, 1, 3), (2, 2, 4)])
async def test_a_turn_is_over_after_the_quantum_times_the_weight(quantum: int, weight: int, jobs: int) -> None:
    life, delivery = Life(rules(quantum, weight=weight)), in_group()
    await life.claimed(delivery, IN_GROUP)
    for number in range(1, jobs):
        await go_on(life, body=in_group(number).body)
    assert not await follows(life, delivery)


@pytest.mark.parametrize(("seconds", "goes_on"), [(1.9, True), (2.0, False)])
async def test_a_turn_is_over_after_the_time_slice_times_the_weight(seconds: float, goes_on: bool) -> None:
    """Of the whole turn, not of one job."""
    life, delivery = Life(rules(weight=2)), in_group()
    await life.claimed(delivery, IN_GROUP)
    await life.clock.advance(0.5)
    await go_on(life)
    await life.clock.advance(seconds - 0.5)
    assert await follows(life, delivery) is goes_on


@pytest.mark.parametrize("weight", [1, 3])
@pytest.mark.parametrize(
    ("of_share", "others_wait", "goes_on"), [(0.9, True, True), (1.0, True, False), (1.0, False, True)]
)
async def test_a_turn_is_over_sooner_when_others_wait_for_the_slot(
    weight: int, of_share: float, others_wait: bool, goes_on: bool
) -> None:
    life, delivery = Life(rules(weight=weight)), in_group()
    await life.claimed(delivery, IN_GROUP)
    await life.clock.advance(of_share * SHARE_AFTER * weight)
    life.slot.others_wait = others_wait
    assert await follows(life, delivery) is goes_on


async def test_nobody_follows_on_a_delivery_that_the_broker_has_taken_back() -> None:
    """Should this worker die then, only its lease would tell."""
    life, delivery = Life(), in_group()
    await life.claimed(delivery, IN_GROUP)
    delivery.lost = True
    assert not await follows(life, delivery)


async def test_nobody_follows_in_a_slot_where_no_job_may_start() -> None:
    life, delivery = Life(), in_group()
    await life.claimed(delivery, IN_GROUP)
    life.slot.is_open = False
    assert not await follows(life, delivery)


async def test_nobody_follows_when_runs_are_interrupted() -> None:
    """One that did not let itself be stopped comes to its end."""
    life, delivery = Life(), in_group()
    await life.claimed(delivery, IN_GROUP)
    life.executor.interrupt_all()
    assert not await follows(life, delivery)


async def test_without_rows_nobody_follows() -> None:
    """There the next one comes by its lane."""
    life, delivery = Life(), in_group()
    delivery.lane = Lane("default", "g")
    actors: dict[str, JobActor[..., Any]] = {"send_mail": send_mail}
    bridge: Any = life.bridge
    ledger = BrokerLedger(_publish_nothing, GroupRules(), life.clock, life.events)
    life.executor = Executor(ledger, bridge, actors, GroupRules(), life.clock, life.events)
    task = life.begin(delivery)
    await settled()
    await life.run_ends(Succeeded())
    await task
    assert (life.slot.told, delivery.endings, life.bridge.runs) == (["freed"], ["ack"], [])


async def _publish_nothing(batch: Any) -> Any:
    raise AssertionError(f"published: {batch}")


# -- long chains, and the end of the process


async def test_a_delivery_that_is_in_hand_for_long_is_acked_early_and_its_chain_goes_on() -> None:
    life, delivery = Life(), in_group()
    task = await life.claimed(delivery, IN_GROUP)
    life.store.advance(timedelta(seconds=12))
    _, job = await go_on(life)
    life.store.advance(timedelta(seconds=12))
    life.executor.ack_early(timedelta(seconds=30))
    assert delivery.endings == []
    life.store.advance(timedelta(seconds=12))
    for _ in range(2):
        life.executor.ack_early(timedelta(seconds=30))
    assert delivery.endings == ["ack"]
    assert [event.job_id for event in life.seen.of(DeliveryAckedEarly)] == [job.job_id]

    settlement, _ = await go_on(life, body=in_group(3).body)
    assert settlement.job_id == job.job_id
    await life.end(Succeeded())
    await task
    assert (life.slot.told, delivery.endings) == (["freed"], ["ack"])


@pytest.mark.parametrize("acked", [False, True], ids=["held", "acked early"])
async def test_an_interrupted_job_that_followed_another_is_published_again(acked: bool) -> None:
    """The delivery in hand is another one's, which has ended."""
    life, delivery = Life(), in_group()
    task = await life.claimed(delivery, IN_GROUP)
    _, job = await go_on(life)
    if acked:
        life.executor.ack_early(timedelta())
    life.slot.is_open = False
    life.executor.interrupt_all()
    assert life.bridge.runs[0].interrupted
    settlement = await life.end(Interrupted())
    await task
    assert (settlement.job_id, settlement.outcome, settlement.republish) == (job.job_id, Interrupted(), True)
    assert settlement.chain is None
    assert (life.slot.told, delivery.endings) == (["freed"], ["ack"])
    assert [event.job_id for event in life.seen.of(JobInterrupted)] == [job.job_id]


async def test_what_follows_when_the_process_has_to_end_does_not_begin() -> None:
    life, delivery = Life(), in_group()
    task = await life.claimed(delivery, IN_GROUP)
    await life.run_ends(Succeeded())
    life.slot.is_open = False
    life.executor.interrupt_all()
    [asked] = life.store.settles
    job = next_job(in_group(2).body, asked.what.chain.run_token)
    answer(life.store.settles, 0, Settled(written=True, next=job))
    await settled()
    assert life.bridge.runs == []
    settlement: Settlement = answer(life.store.settles, 0, WRITTEN)
    await task
    assert (settlement.job_id, settlement.outcome, settlement.republish) == (job.job_id, Interrupted(), True)
    assert delivery.endings == ["ack"]


async def test_an_interrupted_job_gives_back_its_delivery_and_nothing_follows_on_it() -> None:
    life, delivery = Life(), in_group()
    task = await life.claimed(delivery, IN_GROUP)
    settlement = await life.end(Interrupted())
    await task
    assert settlement.chain is None
    assert (life.slot.told, delivery.endings) == (["freed"], ["requeue"])


async def test_an_outcome_that_cannot_be_written_gives_back_the_delivery_that_leads_to_its_job() -> None:
    life, delivery = Life(), in_group()
    task = await life.claimed(delivery, IN_GROUP)
    await go_on(life)
    await life.end(Succeeded(), StoreUnavailableError("closed"))
    await task
    assert (life.slot.told, delivery.endings) == (["freed"], ["requeue"])


# -- what goes wrong in the middle


async def test_a_job_that_follows_and_cannot_be_decoded_becomes_unhandled() -> None:
    life, delivery = Life(), in_group()
    task = await life.claimed(delivery, IN_GROUP)
    _, job = await go_on(life, body=NO_COMMAND)
    assert life.bridge.runs == []
    settlement: Settlement = answer(life.store.settles, 0, WRITTEN)
    await task
    assert (settlement.job_id, settlement.run_token, settlement.group) == (job.job_id, job.run_token, "g")
    assert isinstance(settlement.outcome, Unhandled)
    assert settlement.chain is None
    assert (life.slot.told, delivery.endings) == (["freed"], ["ack"])
    [told] = life.seen.of(JobUnhandled)
    assert (told.job_id, told.reason) == (job.job_id, settlement.outcome.reason)


async def given_back(life: Life, answered: Settled | Exception = WRITTEN) -> list[Settlement]:
    """What is given back at the next look for what was forgotten."""
    task = asyncio.create_task(life.ledger.requeue_forgotten())
    await settled()
    settlements: list[Settlement] = []
    while life.store.settles:
        settlements.append(answer(life.store.settles, 0, answered))
        await settled()
    await task
    return settlements


async def test_a_job_that_followed_and_whose_life_an_error_of_ours_ended_is_given_back() -> None:
    """Its row says that it runs in this process, and no delivery asks for it."""
    life, delivery = Life(), in_group()
    task = await life.claimed(delivery, IN_GROUP)
    _, job = await go_on(life)
    await life.run_ends(Succeeded())
    for _ in range(2):  # the outcome, and that it was refused
        answer(life.store.settles, 0, StoreError("permission denied"))
        await settled()
    with pytest.raises(StoreError):
        await task
    assert delivery.endings == [], "whoever holds it looks at it again"
    [settlement] = await given_back(life)
    assert (settlement.job_id, settlement.run_token) == (job.job_id, job.run_token)
    assert (settlement.outcome, settlement.republish, settlement.group) == (Interrupted(), True, "g")
    assert await given_back(life) == []


async def test_also_the_one_that_another_worker_had_begun() -> None:
    life, delivery = Life(), in_group()
    task = life.begin(delivery)
    await settled()
    job = next_job(NO_COMMAND, life.store.claims[0].what.run_token)
    answer(life.store.claims, 0, Claim(Verdict.GRANT, 2, instead=job, group="g"))
    await settled()
    answer(life.store.settles, 0, StoreError("permission denied"))
    with pytest.raises(StoreError):
        await task
    assert [settlement.job_id for settlement in await given_back(life)] == [job.job_id]


async def test_one_that_cannot_be_decoded_and_cannot_be_set_aside_is_given_back() -> None:
    life, delivery = Life(), in_group()
    task = await life.claimed(delivery, IN_GROUP)
    _, job = await go_on(life, body=NO_COMMAND)
    answer(life.store.settles, 0, StoreError("permission denied"))
    with pytest.raises(StoreError):
        await task
    assert [settlement.job_id for settlement in await given_back(life)] == [job.job_id]


async def test_what_cannot_be_given_back_is_told_and_given_back_later() -> None:
    life, delivery = Life(), in_group()
    task = await life.claimed(delivery, IN_GROUP)
    _, job = await go_on(life, body=NO_COMMAND)
    answer(life.store.settles, 0, StoreError("permission denied"))
    with pytest.raises(StoreError):
        await task
    await given_back(life, StoreError("still denied"))
    [told] = life.seen.of(TaskFailed)
    assert (told.task, "still denied" in told.error) == (f"the return of job {job.job_id}", True)
    assert [settlement.job_id for settlement in await given_back(life)] == [job.job_id]


@pytest.mark.parametrize("settled_as", [WRITTEN, CLAIM_LOST], ids=["written", "claim lost"])
async def test_what_was_settled_is_not_given_back(settled_as: Settled) -> None:
    life, delivery = Life(), in_group()
    task = await life.claimed(delivery, IN_GROUP)
    await go_on(life)
    await life.end(Succeeded(), settled_as)
    await task
    assert await given_back(life) == []


async def test_what_still_runs_is_not_given_back() -> None:
    life, delivery = Life(), in_group()
    await life.claimed(delivery, IN_GROUP)
    assert await given_back(life) == []
    await go_on(life)
    assert await given_back(life) == []
