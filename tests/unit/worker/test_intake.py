"""The deliveries in a worker's hands: every one gets one ending, and every slot is free in the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from jq_actors.actors.actor import JobActor, actor
from jq_actors.errors import StoreError, StoreUnavailableError
from jq_actors.events import DeliveryBuried, DeliveryDropped, Events, JobHeld, TaskFailed
from jq_actors.model.claim_rules import Verdict
from jq_actors.model.command import JobCommand, decode_command, job_id_in
from jq_actors.model.group_rules import GroupRules
from jq_actors.model.outcome import Failed, Failure, Interrupted, Outcome, Retrying, Snoozed, Succeeded, Unhandled
from jq_actors.model.turn_rules import SHARE_AFTER
from jq_actors.store.records import Claim, ClaimRequest, NextJob, Settled, Settlement
from jq_actors.transport.port import Delivery
from jq_actors.worker.executor import Executor
from jq_actors.worker.intake import AFTER_AN_ERROR, Intake, coroutines_of
from jq_actors.worker.intake import THREADS as THREADS_NAME
from jq_actors.worker.ledger import RowLedger
from tests.support.clock import FakeClock
from tests.support.lives import (
    CLAIM_LOST,
    WRITTEN,
    HandBridge,
    RecordingDelivery,
    ScriptedStore,
    answer,
    delivery_of,
    next_job,
    settled,
)
from tests.support.recorder import EventRecorder
from tests.support.sending import RecordingBroker

THREADS, CONCURRENCY = 2, 3

BROKER = RecordingBroker()


@actor(broker=BROKER)
async def coroutine() -> None: ...


@actor(broker=BROKER)
def function() -> None: ...


ACTORS: dict[str, JobActor[..., Any]] = {"coroutine": coroutine, "function": function}

GRANT = Claim(Verdict.GRANT, attempt=1)
IN_GROUP = Claim(Verdict.GRANT, attempt=1, group="g")
HOLD = Claim(Verdict.HOLD, look_again=timedelta(seconds=1))
NO_COMMAND = b'{"message_id": "01890a5d-ac96-774b-bcce-b302099a8057"}'
"""Of a job, and cannot be decoded."""


class Desk:
    """An intake with an executor and a ledger of rows, between neighbours that do what the test says."""

    def __init__(self, concurrency: int = CONCURRENCY) -> None:
        self.store, self.bridge, self.events = ScriptedStore(), HandBridge(), Events()
        self.seen = EventRecorder(self.events, TaskFailed, JobHeld, DeliveryBuried, DeliveryDropped)
        clock: Any = FakeClock()
        self.clock = clock
        store: Any = self.store
        bridge: Any = self.bridge
        self.ledger = RowLedger(store, self.events)
        self.executor = Executor(self.ledger, bridge, ACTORS, GroupRules(), clock, self.events)
        self.intake = Intake(self.executor, ACTORS, THREADS, clock, self.events)
        self.intake.serve("default", concurrency)

    def deliver(self, *names: str) -> list[RecordingDelivery]:
        deliveries = [delivery_of(name) for name in names]
        for delivery in deliveries:
            self.intake.deliver(delivery)
        return deliveries


def requeue(delivery: Delivery, command: JobCommand[Any]) -> None:
    delivery.requeue()


# -- one by one


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk()
    yield desk
    desk.intake.close()  # else each task that ends with the loop would begin another


async def test_a_delivery_is_claimed_run_settled_and_acked(desk: Desk) -> None:
    [delivery] = desk.deliver("coroutine")
    await settled()
    answer(desk.store.claims, 0, GRANT)
    await settled()
    assert delivery.endings == []
    desk.bridge.end(0, Succeeded(1))
    await settled()
    settlement: Settlement = answer(desk.store.settles, 0, WRITTEN)
    assert settlement.outcome == Succeeded(1)
    await settled()
    assert delivery.endings == ["ack"]
    assert await desk.intake.idle(0)


async def test_no_more_are_claimed_than_there_are_slots(desk: Desk) -> None:
    desk.deliver(*["coroutine"] * 5, *["function"] * 5)
    await settled()
    assert len(desk.store.claims) == CONCURRENCY + THREADS
    assert desk.intake.waiting() == {"default": 5}
    assert (desk.intake.busy, desk.intake.in_hand) == (5, 10)


async def test_a_slot_is_free_when_the_actor_has_ended_not_when_that_is_written(desk: Desk) -> None:
    desk.deliver(*["coroutine"] * (CONCURRENCY + 1))
    await settled()
    while desk.store.claims:
        answer(desk.store.claims, 0, GRANT)
    await settled()
    desk.bridge.end(0, Succeeded())
    await settled()
    assert len(desk.store.settles) == 1
    assert len(desk.store.claims) == 1


async def test_an_unknown_actor_takes_a_slot_of_its_queue_and_what_is_no_command_none(desk: Desk) -> None:
    desk.deliver(*["nobody"] * (CONCURRENCY + 1))
    garbage = RecordingDelivery(b"garbage")
    desk.intake.deliver(garbage)
    await settled()
    assert len(desk.store.claims) == CONCURRENCY
    assert garbage.endings[0].startswith("bury: not JSON")


async def test_waiting_deliveries_start_in_their_order(desk: Desk) -> None:
    deliveries = [delivery_of("function", number) for number in range(4)]
    for delivery in deliveries:
        desk.intake.deliver(delivery)
    started = []
    for _ in deliveries:
        await settled()
        started.append(answer(desk.store.claims, 0, Claim(Verdict.DROP_FINAL)).job_id)
    await settled()
    assert [delivery.endings for delivery in deliveries] == [["ack"]] * 4
    assert len(set(started)) == 4


async def test_closing_gives_back_what_has_not_begun_in_its_order_and_what_comes_later(desk: Desk) -> None:
    given_back: list[int] = []
    deliveries = desk.deliver(*["function"] * (THREADS + 3))
    for number, delivery in enumerate(deliveries):
        delivery.requeue = lambda number=number: given_back.append(number)  # type: ignore[method-assign,misc]
    await settled()
    desk.intake.close()
    assert given_back == [2, 3, 4]
    [late] = desk.deliver("coroutine")
    assert late.endings == ["requeue"]
    assert not await desk.intake.idle(0), "two claims are under way"


async def test_a_claim_that_comes_back_after_the_close_with_hold_is_given_back(desk: Desk) -> None:
    [delivery] = desk.deliver("coroutine")
    await settled()
    desk.intake.close()
    answer(desk.store.claims, 0, HOLD)
    await settled()
    assert delivery.endings == ["requeue"]
    assert await desk.intake.idle(0)


def test_a_held_delivery_is_looked_at_again_and_told_of_once() -> None:
    loop, desk = SteppedLoop(), Desk()

    async def hold_twice() -> None:
        [delivery] = desk.deliver("coroutine")
        for _ in range(2):
            await settled()
            answer(desk.store.claims, 0, HOLD)
            await settled()
            assert desk.store.claims == []
            loop.now += 1.0
        await settled()
        assert len(desk.store.claims) == 1
        assert len(desk.seen.of(JobHeld)) == 1
        answer(desk.store.claims, 0, Claim(Verdict.DROP_FINAL))
        await settled()
        assert delivery.endings == ["ack"]

    with closing(loop):
        loop.run_until_complete(hold_twice())


async def test_copies_of_jobs_that_run_elsewhere_are_held_in_a_quarter_of_the_slots_and_the_others_dropped() -> None:
    """Else a restart of the broker during long jobs would fill the prefetch of a worker that could run others."""
    desk = Desk(concurrency=8)
    deliveries = desk.deliver(*["coroutine"] * 8)
    await settled()
    while desk.store.claims:
        answer(desk.store.claims, 0, HOLD)
    await settled()
    assert [delivery.endings for delivery in deliveries] == [[], []] + [["ack"]] * 6
    dropped = [(event.job_id, event.reason) for event in desk.seen.of(DeliveryDropped)]
    assert dropped == [(job_id_in(delivery.body), "runs_elsewhere") for delivery in deliveries[2:]]
    assert len(desk.seen.of(JobHeld)) == 2
    desk.intake.close()
    assert [delivery.endings for delivery in deliveries[:2]] == [["requeue"]] * 2


async def test_what_waits_too_long_is_given_back_before_the_broker_takes_it(desk: Desk) -> None:
    [held, *_] = desk.deliver(*["function"] * THREADS)
    await settled()
    answer(desk.store.claims, 0, HOLD)
    await settled()
    await desk.clock.advance(60)
    [_, waiting, _] = desk.deliver("function", "function", "function")
    desk.intake.return_waiting(30, requeue)
    assert (held.endings, waiting.endings) == (["requeue"], [])
    await desk.clock.advance(60)
    desk.intake.return_waiting(30, requeue)
    assert waiting.endings == ["requeue"]
    assert desk.intake.waiting() == {}


async def test_what_the_broker_took_back_is_forgotten(desk: Desk) -> None:
    deliveries = desk.deliver(*["function"] * (THREADS + 2))
    await settled()
    for delivery in deliveries[THREADS:]:
        delivery.lost = True
    assert desk.intake.waiting() == {}
    answer(desk.store.claims, 0, Claim(Verdict.DROP_FINAL))
    await settled()
    assert len(desk.store.claims) == THREADS - 1, "a lost delivery was claimed"


async def test_what_cannot_be_refused_is_told_and_given_back(desk: Desk) -> None:
    delivery = RecordingDelivery(NO_COMMAND)
    desk.intake.deliver(delivery)
    await settled()
    answer(desk.store.set_asides, 0, RuntimeError("a bug"))
    await settled()
    assert "a bug" in desk.seen.of(TaskFailed)[0].error
    assert (delivery.endings, desk.intake.busy) == ([], 1)
    await desk.clock.advance(AFTER_AN_ERROR.total_seconds())
    assert delivery.endings == ["requeue"]
    assert await desk.intake.idle(0)


async def test_an_error_of_ours_is_told_and_the_delivery_looked_at_again(desk: Desk) -> None:
    [delivery] = desk.deliver("coroutine")
    await settled()
    answer(desk.store.claims, 0, RuntimeError("a bug"))
    await settled()
    assert "a bug" in desk.seen.of(TaskFailed)[0].error
    assert delivery.endings == []
    assert desk.intake.waiting() == {"default": 1}
    desk.intake.close()
    assert delivery.endings == ["requeue"]


async def test_an_error_of_ours_does_not_give_back_what_was_acked_early(desk: Desk) -> None:
    [delivery] = desk.deliver("coroutine")
    await settled()
    answer(desk.store.claims, 0, GRANT)
    await settled()
    desk.executor.ack_early(timedelta())
    desk.intake.close()
    desk.bridge.end(0, Succeeded())
    await settled()
    answer(desk.store.settles, 0, RuntimeError("a bug"))
    await settled()
    assert delivery.endings == ["ack"]
    assert await desk.intake.idle(0)


# -- in a group


async def test_the_next_job_of_a_group_keeps_the_slot_and_others_start_when_the_turn_is_over(desk: Desk) -> None:
    desk.deliver(*["function"] * (THREADS + 1))
    await settled()
    answer(desk.store.claims, 0, IN_GROUP)
    await settled()
    desk.bridge.end(0, Succeeded())
    await settled()
    settlement: Settlement = desk.store.settles[0].what
    assert settlement.chain is not None
    assert settlement.chain.slot == THREADS_NAME
    assert len(desk.store.claims) == THREADS - 1, "the slot was given away"
    job = next_job(delivery_of("function", row=True).body, settlement.chain.run_token)
    answer(desk.store.settles, 0, Settled(written=True, next=job))
    await settled()
    assert len(desk.store.claims) == THREADS - 1
    await desk.clock.advance(SHARE_AFTER)
    desk.bridge.end(0, Succeeded())
    await settled()
    assert desk.store.settles[0].what.chain is None, "another delivery waits for the slot"
    assert len(desk.store.claims) == THREADS


async def test_a_slot_is_named_by_what_fits_there(desk: Desk) -> None:
    desk.deliver("coroutine")
    await settled()
    answer(desk.store.claims, 0, IN_GROUP)
    await settled()
    desk.bridge.end(0, Succeeded())
    await settled()
    assert desk.store.settles[0].what.chain.slot == coroutines_of("default")


async def test_no_job_of_a_group_follows_after_the_close(desk: Desk) -> None:
    desk.deliver("coroutine")
    await settled()
    answer(desk.store.claims, 0, IN_GROUP)
    await settled()
    desk.intake.close()
    desk.bridge.end(0, Succeeded())
    await settled()
    settlement: Settlement = answer(desk.store.settles, 0, WRITTEN)
    assert settlement.chain is None
    await settled()
    assert await desk.intake.idle(0)


# -- all interleavings


class SteppedLoop(asyncio.SelectorEventLoop):
    """A loop whose time stands still until it is moved."""

    now = 0.0

    def time(self) -> float:
        return self.now


OUTCOMES: list[Outcome] = [
    Succeeded(1),
    Failed(Failure(None, "broken")),
    Retrying(Failure(None, "broken"), timedelta(seconds=1)),
    Snoozed(timedelta(seconds=1)),
    Unhandled("no such actor"),
    Interrupted(),
]
CLAIMS: list[Any] = [
    *[GRANT] * 4,
    *[IN_GROUP] * 4,
    HOLD,
    Claim(Verdict.DROP_FINAL),
    Claim(Verdict.DROP_STALE),
    StoreUnavailableError("closed"),
    StoreError("refused"),
    RuntimeError("a bug"),
]
ERRORS = [StoreUnavailableError("closed"), StoreError("refused"), ValueError("bug")]
WRITES: list[Any] = [*[WRITTEN] * 3, CLAIM_LOST, *ERRORS]


class Interleavings(RuleBasedStateMachine):
    """Whatever happens in whatever order: one ending for each delivery, no slot lost or doubled, no run forgotten."""

    @initialize()
    def open(self) -> None:
        self.loop = SteppedLoop()
        self.desk = Desk()
        self.deliveries: list[RecordingDelivery] = []
        self.is_closed = False
        self.begun: set[int] = set()
        """Tokens by which rows say that a job runs here."""

    def step(self) -> None:
        self.loop.run_until_complete(settled())

    @rule(name=st.sampled_from(["coroutine", "function", "nobody"]), promised=st.booleans())
    def deliver(self, name: str, promised: bool) -> None:
        delivery = delivery_of(name, row=True) if promised else delivery_of(name)
        self.deliveries.append(delivery)
        self.loop.run_until_complete(self._call(lambda: self.desk.intake.deliver(delivery)))

    @rule(body=st.sampled_from([b"garbage", NO_COMMAND]))
    def deliver_garbage(self, body: bytes) -> None:
        delivery = RecordingDelivery(body)
        self.deliveries.append(delivery)
        self.loop.run_until_complete(self._call(lambda: self.desk.intake.deliver(delivery)))

    @precondition(lambda self: self.desk.store.set_asides)
    @rule(known=st.sampled_from([True, False, *ERRORS]))
    def answer_a_refusal(self, known: Any) -> None:
        answer(self.desk.store.set_asides, 0, known)
        self.step()

    @precondition(lambda self: self.desk.store.claims)
    @rule(index=st.integers(0, 9), claim=st.sampled_from(CLAIMS))
    def answer_a_claim(self, index: int, claim: Any) -> None:
        request: ClaimRequest = answer(self.desk.store.claims, index, claim)
        if isinstance(claim, Claim) and claim.verdict is Verdict.GRANT:
            self.begun.add(request.run_token)
        self.step()

    @precondition(lambda self: self.desk.store.claims)
    @rule(index=st.integers(0, 9), is_command=st.booleans())
    def take_a_chain_over(self, index: int, is_command: bool) -> None:
        waiting = self.desk.store.claims
        request: ClaimRequest = waiting[index % len(waiting)].what
        began = next(d for d in self.deliveries if job_id_in(d.body) == request.job_id)
        is_function = decode_command(began.body).actor_name == "function"
        job = self._begun(request.run_token, is_function=is_function, is_command=is_command)
        answer(waiting, index, Claim(Verdict.GRANT, 1, group="g", instead=job))
        self.step()

    @precondition(lambda self: self.desk.bridge.runs)
    @rule(index=st.integers(0, 9), outcome=st.sampled_from(OUTCOMES))
    def end_a_run(self, index: int, outcome: Outcome) -> None:
        self.desk.bridge.end(index, outcome)
        self.step()

    @precondition(lambda self: self.desk.store.settles)
    @rule(index=st.integers(0, 9), written=st.sampled_from(WRITES))
    def answer_a_settlement(self, index: int, written: Any) -> None:
        settlement: Settlement = answer(self.desk.store.settles, index, written)
        if isinstance(written, Settled):
            self.begun.discard(settlement.run_token)
        self.step()

    @precondition(lambda self: self.desk.store.settles)
    @rule(index=st.integers(0, 9), is_command=st.booleans())
    def let_one_follow(self, index: int, is_command: bool) -> None:
        waiting = self.desk.store.settles
        settlement: Settlement = waiting[index % len(waiting)].what
        following = None
        if settlement.chain is not None:
            fits = settlement.chain.slot == THREADS_NAME
            following = self._begun(settlement.chain.run_token, is_function=fits, is_command=is_command)
        answer(waiting, index, Settled(written=True, next=following))
        self.begun.discard(settlement.run_token)
        self.step()

    @rule(seconds=st.sampled_from([0.1, 1.0, AFTER_AN_ERROR.total_seconds()]))
    def let_time_pass(self, seconds: float) -> None:
        self.loop.now += seconds
        self.loop.run_until_complete(self.desk.clock.advance(seconds))
        self.desk.store.advance(timedelta(seconds=seconds))
        self.step()

    @rule(older_than=st.sampled_from([0.0, 1.0]))
    def give_back_what_waits(self, older_than: float) -> None:
        self.desk.intake.return_waiting(older_than, requeue)

    @rule(older_than=st.sampled_from([0.0, 1.0]))
    def ack_early(self, older_than: float) -> None:
        self.desk.executor.ack_early(timedelta(seconds=older_than))

    @precondition(lambda self: self.deliveries)
    @rule(index=st.integers(0, 20))
    def lose_a_delivery(self, index: int) -> None:
        self.deliveries[index % len(self.deliveries)].lost = True

    @rule()
    def interrupt_all(self) -> None:
        self.desk.executor.interrupt_all()

    @precondition(lambda self: not self.is_closed)
    @rule()
    def close(self) -> None:
        self.desk.intake.close()
        self.is_closed = True
        self.step()

    @invariant()
    def no_delivery_has_two_endings(self) -> None:
        assert all(len(delivery.endings) <= 1 for delivery in self.deliveries)

    @invariant()
    def no_slot_is_taken_twice(self) -> None:
        runs = [crossing.job.actor is function for crossing in self.desk.bridge.runs]
        of_slots = (sum(runs), THREADS), (len(runs) - sum(runs), CONCURRENCY)
        for slots, (taken, size) in zip(self.desk.intake._all_slots(), of_slots, strict=True):
            assert 0 <= slots.free <= size - taken

    @invariant()
    def no_slot_is_free_while_an_open_delivery_waits_for_one(self) -> None:
        for slots in self.desk.intake._all_slots():
            assert not slots.free or not any(in_hand.delivery.is_open for in_hand in slots.waiting)

    def teardown(self) -> None:
        """Drain: everything that is under way comes to an end, and what was forgotten is given back."""
        desk = self.desk
        desk.intake.close()
        self.step()
        self._end_all()
        giving_back = self.loop.create_task(desk.ledger.requeue_forgotten())
        self.step()
        self._end_all()
        assert giving_back.done()
        endings = [(delivery.endings, delivery.lost) for delivery in self.deliveries]
        assert all(len(ended) == 1 or lost for ended, lost in endings), endings
        assert [slots.free for slots in desk.intake._all_slots()] == [THREADS, CONCURRENCY]
        assert (desk.intake.busy, desk.intake.in_hand) == (0, 0)
        assert self.loop.run_until_complete(desk.intake.idle(0))
        assert not self.begun, "rows say that they run here, and nobody leads them"
        self.loop.close()

    def _end_all(self) -> None:
        store, bridge = self.desk.store, self.desk.bridge
        while store.claims or bridge.runs or store.settles or store.set_asides or self.desk.clock.sleepers:
            while store.claims:
                self.begun.add(answer(store.claims, 0, GRANT).run_token)
            while store.settles:
                self.begun.discard(answer(store.settles, 0, WRITTEN).run_token)
            while store.set_asides:
                answer(store.set_asides, 0, True)
            while bridge.runs:
                bridge.end(0, Succeeded())
            self.loop.run_until_complete(self.desk.clock.advance(AFTER_AN_ERROR.total_seconds()))
            self.step()

    def _begun(self, token: int, *, is_function: bool, is_command: bool) -> NextJob:
        self.begun.add(token)
        following = delivery_of("function" if is_function else "coroutine", row=True, group="g")
        return next_job(following.body if is_command else NO_COMMAND, token)

    async def _call(self, act: Any) -> None:
        act()
        await settled()


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
