"""An executor whose neighbours do what the test says."""

from __future__ import annotations

import asyncio
from typing import Any

from jq_actors.actors.actor import JobActor, actor
from jq_actors.events import (
    DeliveryAckedEarly,
    DeliveryBuried,
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
    TaskFailed,
)
from jq_actors.model.claim_rules import Verdict
from jq_actors.model.command import JobCommand
from jq_actors.model.group_rules import GroupRules
from jq_actors.model.outcome import Outcome
from jq_actors.store.records import Claim, Settled, Settlement
from jq_actors.worker.executor import Executor
from jq_actors.worker.ledger import RowLedger

from .clock import FakeClock
from .lives import WRITTEN, HandBridge, HandSlot, RecordingDelivery, ScriptedStore, answer, settled
from .recorder import EventRecorder
from .sending import RecordingBroker

KINDS = (
    DeliveryAckedEarly,
    DeliveryBuried,
    DeliveryDropped,
    JobParked,
    JobFailed,
    JobFinished,
    JobHeld,
    JobInterrupted,
    JobRetryScheduled,
    JobStarted,
    JobUnhandled,
    OutcomeLost,
    TaskFailed,
)
GRANT = Claim(Verdict.GRANT, attempt=2)
BROKER = RecordingBroker()


@actor(broker=BROKER)
async def send_mail() -> None: ...


class Life:
    """An executor with one delivery; the test decides what store and bridge do."""

    def __init__(self, rules: GroupRules | None = None) -> None:
        self.store, self.bridge, self.events = ScriptedStore(), HandBridge(), Events()
        self.clock, self.slot = FakeClock(), HandSlot()
        self.seen = EventRecorder(self.events, *KINDS)
        store: Any = self.store
        bridge: Any = self.bridge
        actors: dict[str, JobActor[..., Any]] = {"send_mail": send_mail}
        self.ledger = RowLedger(store, self.events)
        self.executor = Executor(self.ledger, bridge, actors, rules or GroupRules(), self.clock, self.events)

    def begin(self, delivery: RecordingDelivery) -> asyncio.Task[None]:
        command = self.executor.receive(delivery)
        assert isinstance(command, JobCommand)
        return asyncio.create_task(self.executor.process(delivery, command, self.slot))

    async def claimed(self, delivery: RecordingDelivery, claim: Claim | Exception = GRANT) -> asyncio.Task[None]:
        task = self.begin(delivery)
        await settled()
        answer(self.store.claims, 0, claim)
        await settled()
        return task

    async def ended(
        self, delivery: RecordingDelivery, outcome: Outcome, written: Settled | Exception = WRITTEN
    ) -> Settlement:
        task = await self.claimed(delivery)
        settlement = await self.end(outcome, written)
        await task
        return settlement

    async def end(self, outcome: Outcome, written: Settled | Exception = WRITTEN) -> Settlement:
        """End the run, and answer its settlement."""
        await self.run_ends(outcome)
        settlement: Settlement = answer(self.store.settles, 0, written)
        await settled()
        return settlement

    async def run_ends(self, outcome: Outcome) -> None:
        self.bridge.end(0, outcome)
        await settled()
