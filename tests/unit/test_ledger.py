"""Claims and outcomes in rows, and at the broker alone: durable first, then the delivery gets its one ending."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from jq_actors.broker_ledger import PUBLISH_AGAIN, REMEMBERED, BrokerLedger
from jq_actors.command import decode_command
from jq_actors.errors import StoreError, StoreUnavailableError
from jq_actors.events import DeliveryBuried, Events, OutcomeDiscarded
from jq_actors.groups import GroupRule, GroupRules
from jq_actors.job import JobId
from jq_actors.ledger import Claimed, RowLedger, new_row
from jq_actors.outcome import (
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
from jq_actors.protocol import Verdict
from jq_actors.store.records import Claim, ClaimRequest, Instead, Settlement
from jq_actors.transport.lane import Lane
from jq_actors.transport.port import NotPublished, Outgoing, Published, PublishResult, PublishUnknown
from tests.support.clock import FakeClock
from tests.support.lives import START, RecordingDelivery, ScriptedStore, answer, delivery_of
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


def claimed(delivery: RecordingDelivery, attempt: int = 1) -> Claimed:
    return Claimed(delivery, decode_command(delivery.body), Claim(Verdict.GRANT, attempt), 7, START)


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


# -- in rows


class Rows:
    """A ledger of rows, and the store under it."""

    def __init__(self) -> None:
        self.store, self.events = ScriptedStore(), Events()
        store: Any = self.store
        self.ledger = RowLedger(store, self.events, lanes_are_shared=True)
        self.seen = EventRecorder(self.events, OutcomeDiscarded)


@pytest.mark.parametrize("promised", [True, False], ids=["ours", "of a plain producer"])
async def test_a_claim_brings_the_row_that_it_would_make(promised: bool) -> None:
    rows = Rows()
    delivery = delivery_of("send_mail", 7, queue="mail", row=promised, priority=4, tags=["eu"])
    delivery.dispatch = 3
    command = decode_command(delivery.body)
    task = asyncio.create_task(rows.ledger.claim(delivery, command, 99))
    await settled()
    request: ClaimRequest = answer(rows.store.claims, 0, Claim(Verdict.GRANT, attempt=2))
    assert await task == Claim(Verdict.GRANT, attempt=2)
    assert (request.job_id, request.dispatch, request.run_token) == (command.job_id, 3, 99)
    assert request.promised is promised
    if promised:
        assert request.adopt is None
    else:
        assert request.adopt == new_row(command, "mail", START)
        assert (request.adopt.priority, request.adopt.tags, request.adopt.body) == (4, ("eu",), delivery.body)


async def test_a_run_that_an_error_of_ours_ended_is_given_back_at_the_next_look() -> None:
    """Its row says that it runs in this process, and nobody but this process could ever say otherwise."""
    rows, delivery = Rows(), delivery_of("send_mail", row=True)
    command, run = decode_command(delivery.body), claimed(delivery)
    task = asyncio.create_task(rows.ledger.claim(delivery, command, run.run_token))
    await settled()
    answer(rows.store.claims, 0, Claim(Verdict.GRANT, attempt=1))
    await task

    look = asyncio.create_task(rows.ledger.claim(delivery, command, 8))
    await settled()
    answer(rows.store.claims, 0, Claim(Verdict.HOLD, own_token=run.run_token))
    assert (await look).verdict is Verdict.HOLD, "it still runs"

    rows.ledger.forget(run)
    look = asyncio.create_task(rows.ledger.claim(delivery, command, 9))
    await settled()
    answer(rows.store.claims, 0, Claim(Verdict.HOLD, own_token=run.run_token))
    await settled()
    given_back: Settlement = answer(rows.store.settles, 0, True)
    assert (given_back.run_token, given_back.outcome) == (run.run_token, Interrupted())
    await settled()
    request: ClaimRequest = answer(rows.store.claims, 0, Claim(Verdict.GRANT, attempt=1))
    assert request.run_token == 9
    assert (await look).verdict is Verdict.GRANT


@pytest.mark.parametrize("outcome", EVERY_OUTCOME, ids=lambda outcome: type(outcome).__name__)
@pytest.mark.parametrize("written", [True, False], ids=["written", "claim lost"])
@pytest.mark.parametrize("acked", [False, True], ids=["held", "acked early"])
async def test_the_delivery_ends_once_and_only_after_the_row_is_written(
    outcome: Outcome, written: bool, acked: bool
) -> None:
    rows, delivery = Rows(), delivery_of("send_mail")
    run = claimed(delivery)
    if acked:
        run.finish()
        run.acked = True
    task = asyncio.create_task(rows.ledger.settle(run, outcome))
    await settled()
    assert delivery.endings == (["ack"] if acked else [])
    settlement: Settlement = answer(rows.store.settles, 0, written)
    assert await task is written
    comes_back = isinstance(outcome, Interrupted) and written
    assert delivery.endings == ["requeue" if comes_back and not acked else "ack"]
    assert settlement.republish is (isinstance(outcome, Interrupted) and acked)
    assert len(rows.seen.of(OutcomeDiscarded)) == (not written)


async def test_an_outcome_that_the_database_refuses_becomes_that_it_was_refused() -> None:
    rows, delivery = Rows(), delivery_of("send_mail")
    task = asyncio.create_task(rows.ledger.settle(claimed(delivery), Succeeded("x")))
    await settled()
    answer(rows.store.settles, 0, StoreError("no such\x00thing"))
    await settled()
    second: Settlement = answer(rows.store.settles, 0, True)
    assert await task is True
    assert isinstance(second.outcome, Failed)
    assert "could not be stored: no such\\x00thing" in second.outcome.failure.error
    assert delivery.endings == ["ack"]


async def test_a_store_that_closes_leaves_the_delivery_to_the_caller() -> None:
    rows, delivery = Rows(), delivery_of("send_mail")
    task = asyncio.create_task(rows.ledger.settle(claimed(delivery), Succeeded()))
    await settled()
    answer(rows.store.settles, 0, StoreUnavailableError("closed"))
    with pytest.raises(StoreUnavailableError):
        await task
    assert delivery.endings == []


# -- in rows, by a lane

LANE = Lane("default", "g")


def in_lane(delivery: RecordingDelivery, lane: Lane | None = LANE) -> RecordingDelivery:
    delivery.lane = lane
    return delivery


def turn(delivery: RecordingDelivery, instead: Instead | None = None) -> Claimed:
    claim = Claim(Verdict.GRANT, 1, group="g", instead=instead)
    return Claimed(delivery, decode_command(delivery.body), claim, 7, START)


async def settle(rows: Rows, run: Claimed, outcome: Outcome, *, written: bool = True) -> Settlement:
    task = asyncio.create_task(rows.ledger.settle(run, outcome))
    await settled()
    settlement: Settlement = answer(rows.store.settles, 0, written)
    await task
    return settlement


@pytest.mark.parametrize(
    ("lane", "shared", "can_leave"),
    [
        (None, True, False),
        (LANE, True, True),
        (LANE, False, False),
        (Lane("default", "*", partition=(1, 2)), True, False),
    ],
    ids=["a plain queue", "a lane", "in memory", "a partition"],
)
async def test_only_a_lane_of_one_group_that_others_can_offer_may_be_left(
    lane: Lane | None, shared: bool, can_leave: bool
) -> None:
    store: Any = ScriptedStore()
    ledger = RowLedger(store, Events(), lanes_are_shared=shared)
    delivery = in_lane(delivery_of("send_mail", queue="mail"), lane)
    task = asyncio.create_task(ledger.claim(delivery, decode_command(delivery.body), 99))
    await settled()
    request: ClaimRequest = answer(store.claims, 0, Claim(Verdict.GRANT, attempt=1))
    await task
    assert (request.queue, request.can_leave) == ("mail", can_leave)


@pytest.mark.parametrize(
    ("outcome", "lane", "overtake", "stays"),
    [
        (Retrying(FAILURE, timedelta(seconds=5)), LANE, False, True),
        (Snoozed(timedelta(seconds=60)), LANE, False, True),
        (Retrying(FAILURE, timedelta(seconds=61)), LANE, False, False),
        (Retrying(FAILURE, timedelta(seconds=5)), LANE, True, False),
        (Retrying(FAILURE, timedelta(seconds=5)), None, False, False),
        (Succeeded(1), LANE, False, False),
    ],
    ids=["retry", "snooze", "a long wait", "others may overtake", "a plain queue", "success"],
)
async def test_a_job_that_runs_again_soon_keeps_its_delivery_and_its_turn(
    outcome: Outcome, lane: Lane | None, overtake: bool, stays: bool
) -> None:
    rows, delivery = Rows(), in_lane(delivery_of("send_mail"), lane)
    rows.store.rules = GroupRules((GroupRule(overtake=overtake),))
    run = turn(delivery)
    settlement = await settle(rows, run, outcome)
    assert settlement.keeps_turn is stays
    assert delivery.endings == ([] if stays else ["ack"])
    assert run.again_in == (outcome.delay if stays and isinstance(outcome, Retrying | Snoozed) else None)


async def test_a_lost_claim_keeps_nothing() -> None:
    rows, delivery = Rows(), in_lane(delivery_of("send_mail"))
    run = turn(delivery)
    await settle(rows, run, Retrying(FAILURE, timedelta(seconds=5)), written=False)
    assert (delivery.endings, run.again_in) == (["ack"], None)


async def test_the_delivery_of_another_job_is_asked_about_again() -> None:
    rows, delivery = Rows(), in_lane(delivery_of("send_mail"))
    run = turn(delivery, Instead(JobId("another"), 3, b""))
    await settle(rows, run, Succeeded(1))
    assert (delivery.endings, run.again_in) == ([], timedelta())


async def test_an_interrupted_job_that_ran_by_another_ones_delivery_is_published_again() -> None:
    rows, delivery = Rows(), in_lane(delivery_of("send_mail"))
    settlement = await settle(rows, turn(delivery, Instead(JobId("another"), 3, b"")), Interrupted())
    assert settlement.republish
    assert delivery.endings == ["requeue"]


async def test_the_delivery_of_another_job_is_given_back_where_its_own_would_be_acked_early() -> None:
    rows, delivery = Rows(), in_lane(delivery_of("send_mail"))
    run = turn(delivery, Instead(JobId("another"), 3, b""))
    run.let_go_early()
    await settle(rows, run, Succeeded(1))
    assert (delivery.endings, run.again_in) == (["requeue"], None)


async def test_a_run_in_place_of_another_job_that_an_error_of_ours_ended_is_given_back() -> None:
    rows, delivery = Rows(), in_lane(delivery_of("send_mail"))
    run = turn(delivery, Instead(JobId("another"), 3, b""))
    rows.ledger.forget(run)
    task = asyncio.create_task(rows.ledger.claim(delivery, run.command, 8))
    await settled()
    given_back: Settlement = answer(rows.store.settles, 0, True)
    assert (given_back.job_id, given_back.run_token, given_back.outcome) == ("another", run.run_token, Interrupted())
    await settled()
    answer(rows.store.claims, 0, Claim(Verdict.GRANT, attempt=1))
    assert (await task).verdict is Verdict.GRANT


async def test_a_settled_run_in_place_of_another_job_is_not_given_back() -> None:
    rows, delivery = Rows(), in_lane(delivery_of("send_mail"))
    run = turn(delivery, Instead(JobId("another"), 3, b""))
    await settle(rows, run, Succeeded(1))
    rows.ledger.forget(run)
    task = asyncio.create_task(rows.ledger.claim(delivery, run.command, 8))
    await settled()
    answer(rows.store.claims, 0, Claim(Verdict.GRANT, attempt=1))
    await task
    assert rows.store.settles == []


async def test_a_group_is_blocked_while_its_rows_say_so() -> None:
    rows = Rows()
    rows.store.turns = [True, False, StoreUnavailableError("away")]
    assert [await rows.ledger.is_blocked("g", "mail") for _ in range(3)] == [False, True, False]


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
        return await self.ledger.claim(delivery, decode_command(delivery.body), 7)

    async def end(self, delivery: RecordingDelivery, outcome: Outcome) -> None:
        run = claimed(delivery)
        await self.ledger.settle(run, outcome)
        self.ledger.forget(run)


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
    await alone.ledger.settle(claimed(delivery), outcome)
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
    task = asyncio.create_task(alone.ledger.settle(claimed(delivery, attempt=3), outcome))
    await settled()
    assert delivery.endings == []
    await alone.clock.advance(PUBLISH_AGAIN)
    assert delivery.endings == []
    await alone.clock.advance(PUBLISH_AGAIN)
    assert await task is True
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
    task = asyncio.create_task(alone.ledger.settle(claimed(delivery), Retrying(FAILURE, timedelta())))
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


@pytest.mark.parametrize(
    ("outcome", "attempt"),
    [(Retrying(FAILURE, timedelta(seconds=5)), 2), (Snoozed(timedelta(seconds=5)), 1)],
    ids=["a retry counts", "a snooze does not"],
)
async def test_in_a_group_what_runs_again_waits_in_hand(outcome: Outcome, attempt: int) -> None:
    alone, delivery = Alone(), in_lane(delivery_of("send_mail", group="g"))
    run = claimed(delivery)
    assert (await alone.claim(delivery)).verdict is Verdict.GRANT
    await alone.ledger.settle(run, outcome)
    alone.ledger.forget(run)
    assert (delivery.endings, alone.published, run.again_in) == ([], [], timedelta(seconds=5))
    assert await alone.claim(delivery) == Claim(Verdict.HOLD, look_again=timedelta(seconds=5))
    await alone.clock.advance(5)
    assert await alone.claim(delivery) == Claim(Verdict.GRANT, attempt=attempt, group="g")


async def test_where_others_may_overtake_it_is_sent_again() -> None:
    alone, delivery = Alone(), in_lane(delivery_of("send_mail", group="g"))
    alone.ledger = BrokerLedger(alone.publish, GroupRules((GroupRule(overtake=True),)), alone.clock, alone.events)
    await alone.ledger.settle(claimed(delivery), Retrying(FAILURE, timedelta(seconds=5)))
    [again] = alone.published
    assert (again.delay, delivery.endings) == (timedelta(seconds=5), ["ack"])


@pytest.mark.parametrize("result", [Published(), NotPublished("away")], ids=["published", "away"])
async def test_a_job_of_a_group_that_comes_by_the_plain_queue_goes_to_its_lane(result: PublishResult) -> None:
    alone, delivery = Alone(result), delivery_of("send_mail", group="g")
    claim = await alone.claim(delivery)
    [outgoing] = alone.published
    assert (outgoing.lane, outgoing.delay) == (Lane("default", "g"), None)
    assert claim.verdict is (Verdict.PARK if result == Published() else Verdict.HOLD)
