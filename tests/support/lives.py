"""The neighbours of the executor, controlled by a test: deliveries, a store and a bridge."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from jq_actors.model.command import JobCommand, job_id_in
from jq_actors.model.job import JobId
from jq_actors.model.lane import Lane
from jq_actors.model.outcome import Outcome
from jq_actors.model.running_job import RunningJob
from jq_actors.store.records import Claim, ClaimRequest, NextJob, Settled, Settlement
from jq_actors.worker.bridge import Crossing

START = datetime(2026, 1, 1, tzinfo=UTC)

WRITTEN, CLAIM_LOST = Settled(written=True), Settled(written=False)
"""How a settlement ended."""


@dataclass(eq=False)
class RecordingDelivery:
    """A `Delivery` that records its endings: ``ack``, ``requeue`` or ``bury``."""

    body: bytes
    queue: str = "default"
    dispatch: int = 1
    redelivered: bool = False
    lost: bool = False
    """The broker has taken it back."""
    endings: list[str] = field(default_factory=list)
    lane: Lane | None = None

    @property
    def is_open(self) -> bool:
        return not self.lost and not self.endings

    def ack(self) -> None:
        self.endings.append("ack")

    def requeue(self) -> None:
        self.endings.append("requeue")

    def bury(self, reason: str) -> None:
        self.endings.append(f"bury: {reason}")


def command_for(actor_name: str, *args: Any, queue: str = "default", **meta: Any) -> JobCommand[Any]:
    """A command. ``meta`` goes into our part of its options."""
    options = {"jq": meta} if meta else {}
    return JobCommand(queue, actor_name, args, {}, options)


def delivery_of(actor_name: str, *args: Any, queue: str = "default", **meta: Any) -> RecordingDelivery:
    """A delivery of a `command`."""
    return RecordingDelivery(command_for(actor_name, *args, queue=queue, **meta).encode(), queue)


def next_job(body: bytes, token: int, *, group: str = "g", attempt: int = 1, queue: str = "default") -> NextJob:
    """The job of ``body`` as one that runs here besides that of a delivery, by ``token``."""
    job_id = job_id_in(body) or JobId("not-decoded")
    return NextJob(job_id, 1, token, attempt, 0, queue, group, body)


@dataclass(eq=False)
class HandSlot:
    """A `Slot` that records its calls."""

    name: str = "coroutines:default"
    others_wait: bool = False
    is_open: bool = True
    is_first_hold: bool = True
    may_hold: bool = True
    told: list[timedelta | str] = field(default_factory=list)
    """``freed``, at most once, and the times of each `hold`, in order."""

    def hold(self, time: timedelta) -> bool:
        self.told.append(time)
        return self.is_first_hold

    def free(self) -> None:
        if "freed" not in self.told:
            self.told.append("freed")


@dataclass(eq=False)
class Asked:
    """A claim or a settlement that waits for the test's answer."""

    what: Any
    answer: asyncio.Future[Any]


class ScriptedStore:
    """The part of a `JobStore` that a ledger uses. Each question waits in a list until the test answers it."""

    def __init__(self) -> None:
        self.claims: list[Asked] = []
        self.settles: list[Asked] = []
        self.set_asides: list[Asked] = []
        self.time = START

    def now(self) -> datetime:
        return self.time

    async def claim(self, request: ClaimRequest) -> Claim:
        claim: Claim = await self._ask(self.claims, request)
        return claim

    async def settle(self, settlement: Settlement) -> Settled:
        settled: Settled = await self._ask(self.settles, settlement)
        return settled

    async def set_aside(self, job_id: JobId, dispatch: int, reason: str) -> bool:
        known: bool = await self._ask(self.set_asides, (job_id, dispatch, reason))
        return known

    def advance(self, by: timedelta) -> None:
        self.time += by

    async def _ask(self, waiting: list[Asked], what: Any) -> Any:
        asked = Asked(what, asyncio.get_running_loop().create_future())
        waiting.append(asked)
        return await asked.answer


def answer(waiting: list[Asked], index: int, with_: Any) -> Any:
    """Answer one of the waiting questions, with a value or an exception; returns the question."""
    asked = waiting.pop(index % len(waiting))
    if isinstance(with_, BaseException):
        asked.answer.set_exception(with_)
    else:
        asked.answer.set_result(with_)
    return asked.what


class HandBridge:
    """A `Bridge` without another side: the test ends the runs."""

    def __init__(self) -> None:
        self.runs: list[Crossing] = []

    def run(self, job: RunningJob) -> Crossing:
        crossing = Crossing(job, asyncio.get_running_loop().create_future())
        self.runs.append(crossing)
        return crossing

    def interrupt(self, crossing: Crossing) -> None:
        crossing.interrupted = True

    def end(self, index: int, outcome: Outcome) -> RunningJob:
        """End one of the runs; returns its job."""
        crossing = self.runs.pop(index % len(self.runs))
        crossing.outcome.set_result(outcome)
        return crossing.job


async def settled() -> None:
    """Let all tasks run as far as they can without an answer from the test."""
    for _ in range(8):
        await asyncio.sleep(0)
