"""The neighbours of the publishing code: a broker and rows that do what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from jq_actors.config.loading import BrokerConfig
from jq_actors.events import Event, Events, JobEnqueued, MarkLost, Redispatched, SendDeferred, TaskFailed
from jq_actors.model.group_rules import GroupRule, GroupRules
from jq_actors.relay.dispatcher import Dispatcher
from jq_actors.store.records import Dispatch, NewJob
from jq_actors.transport.port import NotPublished, Outgoing, Published, PublishResult, PublishUnknown, TransportHealth

from .clock import FakeClock
from .recorder import EventRecorder

AWAY = NotPublished("away")
UNKNOWN = PublishUnknown("no answer")
DEADLINE = timedelta(seconds=10)
RULES = GroupRules((GroupRule("pair-*", concurrency=2),))


class Broker:
    """The part of a `Transport` that publishing uses. The test decides its answers."""

    def __init__(self) -> None:
        self.connected, self.blocked, self.shared = True, False, True
        self.comes = asyncio.Event()
        """Set when nobody has to wait for the connection any more."""
        self.room: dict[str, int] = {}
        self.results: list[PublishResult] = []
        self.published: list[Outgoing] = []
        self.batches: list[int] = []
        self.answers = asyncio.Event()
        self.answers.set()
        self.waited: list[float] = []
        self.starts = 0
        self.error: Exception | None = None

    async def start(self) -> None:
        self.starts += 1
        await asyncio.sleep(0)

    @property
    def health(self) -> TransportHealth:
        return TransportHealth(self.connected, publisher_blocked=self.blocked)

    async def wait_connected(self, timeout: float) -> bool:
        self.waited.append(timeout)
        if not self.connected:
            await self.comes.wait()
        return self.connected

    def capacity(self, queue: str) -> int:
        return self.room.get(queue, 1_000_000)

    async def publish(self, batch: Sequence[Outgoing]) -> list[PublishResult]:
        self.batches.append(len(batch))
        self.published += batch
        await self.answers.wait()
        if self.error is not None:
            raise self.error
        return [self.results.pop(0) if self.results else Published() for _ in batch]


class Rows:
    """The part of a `JobStore` that publishing uses."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.ahead = timedelta()
        """How far the database's clock is ahead of this machine's."""
        self.inserted: list[NewJob] = []
        self.leases: list[timedelta | None] = []
        self.waiting: set[str] = set()
        """The jobs that wait in their groups."""
        self.marked: list[tuple[str, list[str], bool]] = []
        self.error: Exception | None = None
        self.mark_error: Exception | None = None
        self.answers = asyncio.Event()
        self.answers.set()

    def now(self) -> datetime:
        return self._clock.wall() + self.ahead

    async def insert(self, jobs: Sequence[NewJob], *, publish_lease: timedelta | None) -> list[Dispatch]:
        await self.answers.wait()
        if self.error is not None:
            raise self.error
        self.inserted += jobs
        self.leases.append(publish_lease)
        if publish_lease is None:
            return []
        ready = [job for job in jobs if job.due_at <= job.enqueued_at and job.id not in self.waiting]
        return [Dispatch(job.id, 1, job.queue, job.body, job.priority, job.group) for job in ready]

    async def mark_published(self, dispatches: Sequence[tuple[str, int]], *, lane_owner: bool = False) -> None:
        await self.answers.wait()
        if self.mark_error is not None:
            raise self.mark_error
        self.marked.append(("published", [job_id for job_id, _ in dispatches], lane_owner))

    async def note_refused(self, dispatches: Sequence[tuple[str, int]]) -> None:
        await self.answers.wait()
        self.marked.append(("refused", [job_id for job_id, _ in dispatches], False))

    async def release_publish_lease(self, dispatches: Sequence[tuple[str, int]]) -> None:
        await self.answers.wait()
        self.marked.append(("released", [job_id for job_id, _ in dispatches], False))


class PublishingSite:
    """A dispatcher with a broker and rows of the test."""

    def __init__(self, *, window: int = 1000, shared: bool = True) -> None:
        self.clock, self.events, self.broker = FakeClock(), Events(), Broker()
        self.broker.shared = shared
        self.rows = Rows(self.clock)
        kinds: list[type[Event]] = [JobEnqueued, MarkLost, Redispatched, SendDeferred, TaskFailed]
        self.seen = EventRecorder(self.events, *kinds)
        transport: Any = self.broker
        store: Any = self.rows
        config = BrokerConfig(publish_window=window, confirm_timeout=DEADLINE)
        self.dispatcher = Dispatcher(transport, store, self.clock, self.events, config=config)
        self.wakes: list[None] = []
        self.dispatcher.notes.on_released = lambda: self.wakes.append(None)

    @property
    def published(self) -> list[str]:
        """The ids of the jobs that reached the broker."""
        return [outgoing.job_id for outgoing in self.broker.published]

    async def settled(self) -> None:
        """Let all tasks run as far as they can without broker, rows and clock."""
        for _ in range(20):
            await asyncio.sleep(0)
