"""The neighbours of the executor, led by the hand of a test: deliveries, a store and a bridge that do what it says."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from jq_actors.bridge import Crossing
from jq_actors.command import JobCommand
from jq_actors.current import RunningJob
from jq_actors.groups import GroupRules
from jq_actors.outcome import Outcome
from jq_actors.store.records import Claim, ClaimRequest, Settlement
from jq_actors.transport.lane import Lane
from jq_actors.transport.port import StillBlocked

START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(eq=False)
class RecordingDelivery:
    """A `Delivery` that keeps its endings: ``ack``, ``requeue``, ``leave`` or ``bury``."""

    body: bytes
    queue: str = "default"
    dispatch: int = 1
    redelivered: bool = False
    lost: bool = False
    """The broker has taken it back."""
    endings: list[str] = field(default_factory=list)
    lane: Lane | None = None
    still_blocked: StillBlocked | None = None
    """What `leave` was given."""

    @property
    def is_open(self) -> bool:
        return not self.lost and not self.endings

    def ack(self) -> None:
        self.endings.append("ack")

    def requeue(self) -> None:
        self.endings.append("requeue")

    def leave(self, still_blocked: StillBlocked) -> None:
        self.endings.append("leave")
        self.still_blocked = still_blocked

    def bury(self, reason: str) -> None:
        self.endings.append(f"bury: {reason}")


def command_for(actor_name: str, *args: Any, queue: str = "default", **meta: Any) -> JobCommand[Any]:
    """A command; ``meta`` goes into what is ours of its options."""
    options = {"jq": meta} if meta else {}
    return JobCommand(queue, actor_name, args, {}, options)


def delivery_of(actor_name: str, *args: Any, queue: str = "default", **meta: Any) -> RecordingDelivery:
    """A delivery of such a command."""
    return RecordingDelivery(command_for(actor_name, *args, queue=queue, **meta).encode(), queue)


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
        self.time = START
        self.rules = GroupRules()
        self.turns: list[bool | Exception] = []
        """What `has_turn` answers, one after the other."""

    def now(self) -> datetime:
        return self.time

    async def claim(self, request: ClaimRequest) -> Claim:
        claim: Claim = await self._ask(self.claims, request)
        return claim

    async def settle(self, settlement: Settlement) -> bool:
        written: bool = await self._ask(self.settles, settlement)
        return written

    async def has_turn(self, group: str, queue: str) -> bool:
        answer = self.turns.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def advance(self, by: timedelta) -> None:
        self.time += by

    async def _ask(self, waiting: list[Asked], what: Any) -> Any:
        asked = Asked(what, asyncio.get_running_loop().create_future())
        waiting.append(asked)
        return await asked.answer


def answer(waiting: list[Asked], index: int, with_: Any) -> Any:
    """Answer one of those that wait, with a value or an exception; returns what was asked."""
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
