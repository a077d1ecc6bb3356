"""Claims and outcomes in rows, and at the broker alone: durable first, then the delivery gets its one ending."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from jq_actors.errors import StoreError, StoreUnavailableError
from jq_actors.events import DeliveryBuried, Events, OutcomeDiscarded
from jq_actors.model.claim_rules import Verdict
from jq_actors.model.command import decode_command
from jq_actors.model.group_rules import GroupRule, GroupRules
from jq_actors.model.job import JobId
from jq_actors.model.lane import Lane
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
from jq_actors.store.records import Chain, Claim, ClaimRequest, NextJob, Settled, Settlement
from jq_actors.transport.port import NotPublished, Outgoing, Published, PublishResult, PublishUnknown
from jq_actors.worker.broker_ledger import PUBLISH_AGAIN, REMEMBERED, BrokerLedger
from jq_actors.worker.intake import THREADS
from jq_actors.worker.ledger import ActiveRun, RowLedger, SettledRun, Turn, new_row
from tests.support.clock import FakeClock
from tests.support.lives import (
    CLAIM_LOST,
    START,
    WRITTEN,
    RecordingDelivery,
    ScriptedStore,
    answer,
    delivery_of,
    next_job,
    settled,
)
from tests.support.recorder import EventRecorder

FAILURE = Failure(None, "ValueError: broken")
EVERY_OUTCOME: list[Outcome] = [
    Succeeded(1),
    Failed(FAILURE),
    Retrying(FAILURE, timedelta(seconds=5)),
    Snoozed(timedelta(seconds=5)),
    Cancelled("by somebody"),
    Unhandled("no such actor"),
    Interrupted(),
]


def active_run(delivery: RecordingDelivery, attempt: int = 1) -> ActiveRun:
    turn, command = Turn(delivery, START, 0.0), decode_command(delivery.body)
    return ActiveRun(turn, command, Claim(Verdict.GRANT, attempt, group=command.group), 7, START)


# -- in rows


class Rows:
    """A ledger of rows, and the store under it."""

    def __init__(self) -> None:
        self.store, self.events = ScriptedStore(), Events()
        store: Any = self.store
        self.ledger = RowLedger(store, self.events)
        self.seen = EventRecorder(self.events, OutcomeDiscarded)


@pytest.mark.parametrize("promised", [True, False], ids=["ours", "of a plain producer"])
async def test_a_claim_brings_the_row_that_it_would_make(promised: bool) -> None:
    rows = Rows()
    delivery = delivery_of("send_mail", 7, queue="mail", row=promised, priority=4, tags=["eu"])
    delivery.dispatch = 3
    command = decode_command(delivery.body)
    task = asyncio.create_task(rows.ledger.claim(delivery, command, 99, THREADS))
    await settled()
    request: ClaimRequest = answer(rows.store.claims, 0, Claim(Verdict.GRANT, attempt=2))
    assert await task == Claim(Verdict.GRANT, attempt=2)
    assert (request.job_id, request.dispatch, request.run_token, request.slot) == (command.job_id, 3, 99, THREADS)
    assert request.promised is promised
    if promised:
        assert request.adopt is None
    else:
        assert request.adopt == new_row(command, "mail", START)
        assert (request.adopt.priority, request.adopt.tags, request.adopt.body) == (4, ("eu",), delivery.body)


async def test_a_run_that_an_error_of_ours_ended_is_given_back_at_the_next_look() -> None:
    """Its row says that it runs in this process, and nobody but this process could ever say otherwise."""
    rows, delivery = Rows(), delivery_of("send_mail", row=True)
    command, run = decode_command(delivery.body), active_run(delivery)
    task = asyncio.create_task(rows.ledger.claim(delivery, command, run.run_token, THREADS))
    await settled()
    answer(rows.store.claims, 0, Claim(Verdict.GRANT, attempt=1))
    await task

    look = asyncio.create_task(rows.ledger.claim(delivery, command, 8, THREADS))
    await settled()
    answer(rows.store.claims, 0, Claim(Verdict.HOLD, own_token=run.run_token))
    assert (await look).verdict is Verdict.HOLD, "it still runs"

    rows.ledger.forget(run.run_token)
    look = asyncio.create_task(rows.ledger.claim(delivery, command, 9, THREADS))
    await settled()
    answer(rows.store.claims, 0, Claim(Verdict.HOLD, own_token=run.run_token))
    await settled()
    given_back: Settlement = answer(rows.store.settles, 0, WRITTEN)
    assert (given_back.run_token, given_back.outcome) == (run.run_token, Interrupted())
    assert given_back.republish, "the delivery in hand may be an older copy of it"
    await settled()
    request: ClaimRequest = answer(rows.store.claims, 0, Claim(Verdict.GRANT, attempt=1))
    assert request.run_token == 9
    assert (await look).verdict is Verdict.GRANT
    await rows.ledger.requeue_forgotten()
    assert rows.store.settles == []


async def test_a_run_whose_life_ended_and_whose_delivery_is_gone_is_given_back_all_the_same() -> None:
    """Where the delivery came again is not known: at another worker it waits for this one to end."""
    rows, delivery = Rows(), delivery_of("send_mail", row=True, group="g")
    command = decode_command(delivery.body)
    task = asyncio.create_task(rows.ledger.claim(delivery, command, 8, THREADS))
    await settled()
    answer(rows.store.claims, 0, Claim(Verdict.GRANT, attempt=1, group="g"))
    await task
    rows.ledger.forget(8)
    look = asyncio.create_task(rows.ledger.requeue_forgotten())
    await settled()
    given_back: Settlement = answer(rows.store.settles, 0, WRITTEN)
    await look
    assert (given_back.job_id, given_back.run_token, given_back.group) == (command.job_id, 8, "g")
    assert (given_back.outcome, given_back.republish) == (Interrupted(), True)


@pytest.mark.parametrize("answered", [Claim(Verdict.HOLD), Claim(Verdict.DROP_FINAL), StoreError("refused")], ids=str)
async def test_a_claim_that_was_not_granted_is_not_given_back(answered: Claim | Exception) -> None:
    rows, delivery = Rows(), delivery_of("send_mail", row=True)
    task = asyncio.create_task(rows.ledger.claim(delivery, decode_command(delivery.body), 8, THREADS))
    await settled()
    answer(rows.store.claims, 0, answered)
    await asyncio.wait([task])
    assert task.exception() == (answered if isinstance(answered, Exception) else None)
    rows.ledger.forget(8)
    await rows.ledger.requeue_forgotten()
    assert rows.store.settles == []


@pytest.mark.parametrize("outcome", EVERY_OUTCOME, ids=lambda outcome: type(outcome).__name__)
@pytest.mark.parametrize("written", [WRITTEN, CLAIM_LOST], ids=["written", "claim lost"])
@pytest.mark.parametrize("acked", [False, True], ids=["held", "acked early"])
async def test_the_delivery_ends_once_and_only_after_the_row_is_written(
    outcome: Outcome, written: Settled, acked: bool
) -> None:
    rows, delivery = Rows(), delivery_of("send_mail")
    run = active_run(delivery)
    if acked:
        run.turn.ack_early()
    task = asyncio.create_task(rows.ledger.settle(run, outcome, None))
    await settled()
    assert delivery.endings == (["ack"] if acked else [])
    settlement: Settlement = answer(rows.store.settles, 0, written)
    assert await task == SettledRun(outcome if written.written else None)
    comes_back = isinstance(outcome, Interrupted) and written.written
    assert delivery.endings == ["requeue" if comes_back and not acked else "ack"]
    assert settlement.republish is (isinstance(outcome, Interrupted) and acked)
    assert len(rows.seen.of(OutcomeDiscarded)) == (not written.written)


async def test_an_interrupted_job_whose_delivery_was_lost_is_published_again() -> None:
    """The broker's copy may have been dropped by a worker that saw that it ran here."""
    rows, delivery = Rows(), delivery_of("send_mail")
    run = active_run(delivery)
    delivery.lost = True
    task = asyncio.create_task(rows.ledger.settle(run, Interrupted(), None))
    await settled()
    settlement: Settlement = answer(rows.store.settles, 0, WRITTEN)
    assert settlement.republish
    await task


async def test_an_outcome_that_the_database_refuses_becomes_that_it_was_refused() -> None:
    rows, delivery = Rows(), delivery_of("send_mail")
    task = asyncio.create_task(rows.ledger.settle(active_run(delivery), Succeeded("x"), None))
    await settled()
    answer(rows.store.settles, 0, StoreError("no such\x00thing"))
    await settled()
    second: Settlement = answer(rows.store.settles, 0, WRITTEN)
    assert await task == SettledRun(second.outcome)
    assert isinstance(second.outcome, Failed)
    assert "could not be stored: no such\\x00thing" in second.outcome.failure.error
    assert delivery.endings == ["ack"]


async def test_a_store_that_closes_leaves_the_delivery_to_the_caller() -> None:
    rows, delivery = Rows(), delivery_of("send_mail")
    task = asyncio.create_task(rows.ledger.settle(active_run(delivery), Succeeded(), None))
    await settled()
    answer(rows.store.settles, 0, StoreUnavailableError("closed"))
    with pytest.raises(StoreUnavailableError):
        await task
    assert delivery.endings == []


# -- in rows, in a group


def follower(token: int = 8) -> NextJob:
    return next_job(delivery_of("send_mail", 2, row=True, group="g").body, token)


def following(delivery: RecordingDelivery) -> ActiveRun:
    """A run of a job that followed the one of the delivery."""
    return replace(active_run(delivery), is_own=False)


async def settle(
    rows: Rows, run: ActiveRun, outcome: Outcome, answered: Settled = WRITTEN, chain: Chain | None = None
) -> tuple[Settlement, SettledRun]:
    task = asyncio.create_task(rows.ledger.settle(run, outcome, chain))
    await settled()
    settlement: Settlement = answer(rows.store.settles, 0, answered)
    return settlement, await task


async def test_a_claim_says_whether_its_delivery_came_before() -> None:
    """The worker that had it may have died in the middle of a chain."""
    rows, delivery = Rows(), delivery_of("send_mail", row=True, group="g")
    delivery.redelivered = True
    task = asyncio.create_task(rows.ledger.claim(delivery, decode_command(delivery.body), 99, THREADS))
    await settled()
    request: ClaimRequest = answer(rows.store.claims, 0, Claim(Verdict.DROP_FINAL))
    await task
    assert request.redelivered


async def test_the_delivery_stays_in_hand_while_another_job_follows_on_it() -> None:
    rows, delivery, job = Rows(), delivery_of("send_mail", group="g"), follower()
    settlement, run = await settle(
        rows, active_run(delivery), Succeeded(1), Settled(written=True, next=job), Chain(job.run_token, "a slot")
    )
    assert (settlement.group, settlement.chain) == ("g", Chain(job.run_token, "a slot"))
    assert (run, delivery.endings) == (SettledRun(Succeeded(1), next=job), [])
    settlement, run = await settle(rows, following(delivery), Succeeded(1))
    assert (run, delivery.endings, settlement.republish) == (SettledRun(Succeeded(1)), ["ack"], False)


async def test_a_job_that_follows_is_one_that_runs_here_from_the_wish_on() -> None:
    """A copy of it that comes meanwhile must not take it for one that was forgotten."""
    rows, delivery, job = Rows(), delivery_of("send_mail", group="g"), follower()
    settling = asyncio.create_task(
        rows.ledger.settle(active_run(delivery), Succeeded(), Chain(job.run_token, "a slot"))
    )
    await settled()
    copy = RecordingDelivery(job.body)
    look = asyncio.create_task(rows.ledger.claim(copy, decode_command(copy.body), 9, THREADS))
    await settled()
    answer(rows.store.claims, 0, Claim(Verdict.HOLD, own_token=job.run_token))
    assert (await look).verdict is Verdict.HOLD
    answer(rows.store.settles, 0, Settled(written=True, next=job))
    await settling
    assert rows.store.settles == []


async def test_a_wish_that_was_not_fulfilled_leaves_nothing() -> None:
    rows, delivery = Rows(), delivery_of("send_mail", group="g")
    await settle(rows, active_run(delivery), Succeeded(1), WRITTEN, Chain(8, "a slot"))
    assert delivery.endings == ["ack"]
    rows.ledger.forget(8)
    await rows.ledger.requeue_forgotten()
    assert rows.store.settles == []


@pytest.mark.parametrize("acked", [False, True], ids=["held", "acked early"])
async def test_an_interrupted_job_that_followed_is_published_again(acked: bool) -> None:
    rows, delivery = Rows(), delivery_of("send_mail", group="g")
    run = following(delivery)
    if acked:
        run.turn.ack_early()
    settlement, _ = await settle(rows, run, Interrupted())
    assert settlement.republish
    assert delivery.endings == ["ack"]


async def test_what_is_given_up_becomes_unhandled() -> None:
    rows, job = Rows(), follower()
    task = asyncio.create_task(rows.ledger.mark_unhandled(job, "no command"))
    await settled()
    settlement: Settlement = answer(rows.store.settles, 0, WRITTEN)
    await task
    assert (settlement.job_id, settlement.run_token, settlement.group) == (job.job_id, job.run_token, "g")
    assert (settlement.outcome, settlement.chain) == (Unhandled("no command"), None)


async def test_what_is_set_aside_is_so_in_its_row() -> None:
    rows = Rows()
    for known in (True, False):
        task = asyncio.create_task(rows.ledger.set_aside(JobId("a"), 3, "no command"))
        await settled()
        assert answer(rows.store.set_asides, 0, known) == ("a", 3, "no command")
        assert await task is known


# -- at the broker alone


class Alone:
    """A ledger without rows, and what it publishes."""

    def __init__(self, *results: PublishResult) -> None:
        self.published: list[Outgoing] = []
        self.clock, self.events = FakeClock(), Events()
        self._results = list(results)
        self.ledger = BrokerLedger(self.publish, GroupRules(), self.clock, self.events)
        self.seen = EventRecorder(self.events, DeliveryBuried)

    async def publish(self, batch: Sequence[Outgoing]) -> list[PublishResult]:
        self.published += batch
        return [self._results.pop(0) if self._results else Published() for _ in batch]

    async def claim(self, delivery: RecordingDelivery) -> Claim:
        return await self.ledger.claim(delivery, decode_command(delivery.body), 7, THREADS)

    async def end(self, delivery: RecordingDelivery, outcome: Outcome) -> None:
        run = active_run(delivery)
        await self.ledger.settle(run, outcome, None)
        self.ledger.forget(run.run_token)


@pytest.mark.parametrize(
    ("outcome", "ending"),
    [
        (Succeeded(1), "ack"),
        (Cancelled("by somebody"), "ack"),
        (Interrupted(), "requeue"),
        (Failed(FAILURE), "bury: ValueError: broken"),
        (Unhandled("no such actor"), "bury: no such actor"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
async def test_how_an_outcome_ends_the_only_copy(outcome: Outcome, ending: str) -> None:
    alone, delivery = Alone(), delivery_of("send_mail")
    await alone.ledger.settle(active_run(delivery), outcome, None)
    assert delivery.endings == [ending]
    assert alone.published == []
    assert len(alone.seen.of(DeliveryBuried)) == ending.startswith("bury")


@pytest.mark.parametrize(
    ("outcome", "attempts"),
    [(Retrying(FAILURE, timedelta(seconds=5)), 3), (Snoozed(timedelta(seconds=5)), 2)],
    ids=["a retry counts", "a snooze does not"],
)
async def test_what_runs_again_is_published_anew_and_confirmed_first(outcome: Outcome, attempts: int) -> None:
    alone = Alone(NotPublished("away"), PublishUnknown("no answer"))
    delivery = delivery_of("send_mail", 7, attempt=2, priority=4)
    task = asyncio.create_task(alone.ledger.settle(active_run(delivery, attempt=3), outcome, None))
    await settled()
    assert delivery.endings == []
    await alone.clock.advance(PUBLISH_AGAIN)
    assert delivery.endings == []
    await alone.clock.advance(PUBLISH_AGAIN)
    assert await task == SettledRun(outcome)
    assert delivery.endings == ["ack"]
    assert len(alone.published) == 3
    again = alone.published[-1]
    assert (again.dispatch, again.delay, again.queue, again.priority) == (2, timedelta(seconds=5), "default", 4)
    assert decode_command(again.body).attempt == attempts
    assert again.job_id == decode_command(delivery.body).job_id


@pytest.mark.parametrize("outcome", [Retrying(FAILURE, timedelta(days=700)), Snoozed(timedelta(days=700))])
async def test_what_the_broker_cannot_hold_back_so_long_is_buried(outcome: Outcome) -> None:
    alone, delivery = Alone(), delivery_of("send_mail")
    await alone.end(delivery, outcome)
    assert alone.published == []
    assert delivery.endings == ["bury: it is to run again after 700 days; without persistence 600 are possible"]
    assert len(alone.seen.of(DeliveryBuried)) == 1


async def test_what_the_broker_took_back_meanwhile_is_not_published_a_second_time() -> None:
    alone, delivery = Alone(NotPublished("away")), delivery_of("send_mail")
    task = asyncio.create_task(alone.ledger.settle(active_run(delivery), Retrying(FAILURE, timedelta()), None))
    await settled()
    delivery.lost = True
    await alone.clock.advance(PUBLISH_AGAIN)
    await task
    assert len(alone.published) == 1


async def test_every_delivery_is_an_attempt() -> None:
    alone = Alone()
    assert await alone.claim(delivery_of("send_mail", attempt=2)) == Claim(Verdict.GRANT, attempt=3)


def _copy(delivery: RecordingDelivery, *, redelivered: bool = True, dispatch: int = 1) -> RecordingDelivery:
    return RecordingDelivery(delivery.body, dispatch=dispatch, redelivered=redelivered)


async def test_a_copy_of_what_runs_here_waits_for_its_end_and_is_dropped() -> None:
    """The connection was lost in mid-job: the job goes on, and the broker delivers it again."""
    alone, delivery = Alone(), delivery_of("send_mail")
    assert (await alone.claim(delivery)).verdict is Verdict.GRANT
    delivery.lost = True
    assert (await alone.claim(_copy(delivery))).verdict is Verdict.HOLD
    await alone.end(delivery, Succeeded())
    assert (await alone.claim(_copy(delivery))).verdict is Verdict.DROP_FINAL


@pytest.mark.parametrize(
    "outcome",
    [Failed(FAILURE), Unhandled("no such actor"), Interrupted(), Retrying(FAILURE, timedelta())],
    ids=lambda outcome: type(outcome).__name__,
)
async def test_a_copy_of_what_has_not_come_to_its_end_runs(outcome: Outcome) -> None:
    alone, delivery = Alone(), delivery_of("send_mail")
    await alone.claim(delivery)
    delivery.lost = True
    await alone.end(delivery, outcome)
    assert (await alone.claim(_copy(delivery))).verdict is Verdict.GRANT


async def test_what_was_sent_again_on_purpose_is_no_copy() -> None:
    alone, delivery = Alone(), delivery_of("send_mail")
    await alone.claim(delivery)
    assert (await alone.claim(_copy(delivery, dispatch=2))).verdict is Verdict.GRANT
    assert (await alone.claim(_copy(delivery, redelivered=False))).verdict is Verdict.GRANT


async def test_it_does_not_remember_for_ever() -> None:
    alone = Alone()
    deliveries = [delivery_of("send_mail", number) for number in range(REMEMBERED + 1)]
    for delivery in deliveries:
        await alone.claim(delivery)
        await alone.end(delivery, Succeeded())
    assert (await alone.claim(_copy(deliveries[0]))).verdict is Verdict.GRANT
    assert (await alone.claim(_copy(deliveries[1]))).verdict is Verdict.DROP_FINAL
    assert len(alone.ledger._running) == 1


# -- at the broker alone, by a lane

LANE = Lane("default", "g")


def in_lane(delivery: RecordingDelivery) -> RecordingDelivery:
    delivery.lane = LANE
    return delivery


@pytest.mark.parametrize(
    ("outcome", "attempt"),
    [(Retrying(FAILURE, timedelta(seconds=5)), 2), (Snoozed(timedelta(seconds=5)), 1)],
    ids=["a retry counts", "a snooze does not"],
)
async def test_in_a_group_what_runs_again_waits_in_hand(outcome: Outcome, attempt: int) -> None:
    alone, delivery = Alone(), in_lane(delivery_of("send_mail", group="g"))
    run = active_run(delivery)
    assert (await alone.claim(delivery)).verdict is Verdict.GRANT
    await alone.ledger.settle(run, outcome, None)
    alone.ledger.forget(run.run_token)
    assert (delivery.endings, alone.published, run.again_in) == ([], [], timedelta(seconds=5))
    assert await alone.claim(delivery) == Claim(Verdict.HOLD, look_again=timedelta(seconds=5))
    await alone.clock.advance(5)
    assert await alone.claim(delivery) == Claim(Verdict.GRANT, attempt=attempt, group="g")


async def test_where_others_may_overtake_it_is_sent_again() -> None:
    alone, delivery = Alone(), in_lane(delivery_of("send_mail", group="g"))
    alone.ledger = BrokerLedger(alone.publish, GroupRules((GroupRule(overtake=True),)), alone.clock, alone.events)
    await alone.ledger.settle(active_run(delivery), Retrying(FAILURE, timedelta(seconds=5)), None)
    [again] = alone.published
    assert (again.delay, delivery.endings) == (timedelta(seconds=5), ["ack"])


@pytest.mark.parametrize("result", [Published(), NotPublished("away")], ids=["published", "away"])
async def test_a_job_of_a_group_that_comes_by_the_plain_queue_goes_to_its_lane(result: PublishResult) -> None:
    alone, delivery = Alone(result), delivery_of("send_mail", group="g")
    claim = await alone.claim(delivery)
    [outgoing] = alone.published
    assert (outgoing.lane, outgoing.delay) == (LANE, None)
    assert claim.verdict is (Verdict.PARK if result == Published() else Verdict.HOLD)
