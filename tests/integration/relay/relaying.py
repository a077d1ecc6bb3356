"""A worker without actors: a real store, a real transport, a relay, and hands for what is delivered."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

from jq_actors.clock import SystemClock
from jq_actors.config.loading import BrokerConfig
from jq_actors.events import Event, Events
from jq_actors.model.claim_rules import Verdict
from jq_actors.model.job import JobId, new_job_ids
from jq_actors.model.outcome import Outcome
from jq_actors.model.worker_identity import WorkerIdentity, identify
from jq_actors.relay.dispatcher import Dispatcher
from jq_actors.relay.relay import Relay
from jq_actors.store.records import Claim, ClaimRequest, Leases, NewJob, Settlement
from jq_actors.store.sql import SqlStore
from jq_actors.transport.embedded.transport import EmbeddedTransport
from jq_actors.transport.port import Delivery, Transport
from jq_actors.transport.rabbitmq import RabbitTransport
from tests.support.recorder import EventRecorder
from tests.support.waiting import eventually

QUEUE = "mail"
NEVER = timedelta(hours=1)
"""An interval that no test waits for: what happens all the same was not found by polling."""

clock = SystemClock()
_HERE = identify(clock)

MakeTransport = Callable[[Events], Transport]


def embedded(events: Events) -> Transport:
    return EmbeddedTransport(BrokerConfig(), clock, events, has_store=True)


def rabbitmq(url: str, namespace: str, **settings: Any) -> MakeTransport:
    config = BrokerConfig(url=url, namespace=namespace, **settings)
    return lambda events: RabbitTransport(config, clock, events)


class RelayingWorker:
    """Made by `working`."""

    def __init__(self, store: SqlStore, transport: Transport, relay: Relay, recorder: EventRecorder) -> None:
        self.store, self.transport, self.relay, self.recorder = store, transport, relay, recorder
        self.deliveries: list[Delivery] = []

    @property
    def bodies(self) -> list[str]:
        """What was delivered so far."""
        return [delivery.body.decode() for delivery in self.deliveries]

    def consume(self, prefetch: int = 1000, *, ack: bool = True) -> None:
        """Take deliveries from now on."""

        def take(delivery: Delivery) -> None:
            self.deliveries.append(delivery)
            if ack:
                delivery.ack()

        self.transport.want(QUEUE, prefetch, take)

    async def has(self, count: int, timeout: float = 15.0) -> list[Delivery]:
        """Wait until ``count`` deliveries have come."""
        await eventually(lambda: len(self.deliveries) >= count, timeout, f"{count} deliveries")
        return self.deliveries

    async def insert(
        self, bodies: Sequence[str], *, due_in: timedelta = timedelta(), lease: timedelta | None = None
    ) -> list[JobId]:
        """Store jobs as a producer does; without ``lease`` nobody but a relay publishes them."""
        now, ids = self.store.now(), new_job_ids(clock, len(bodies))
        rows = [
            NewJob(id_, "send_mail", QUEUE, body.encode(), due_at=now + due_in, enqueued_at=now)
            for id_, body in zip(ids, bodies, strict=True)
        ]
        await self.store.insert(rows, publish_lease=lease)
        return ids

    async def claim(self, job_id: JobId, dispatch: int = 1) -> tuple[Claim, int]:
        """Make a delivery an attempt; its verdict, and the token that settles it."""
        now, token = self.store.now(), clock.random_bits(63)
        adopt = NewJob(job_id, "send_mail", QUEUE, b"", due_at=now, enqueued_at=now)
        return await self.store.claim(ClaimRequest(job_id, dispatch, token, promised=True, adopt=adopt)), token

    async def end(self, job_id: JobId, outcome: Outcome) -> None:
        """Claim and settle."""
        claim, token = await self.claim(job_id)
        assert claim.verdict is Verdict.GRANT
        await self.settle(job_id, token, outcome)

    async def settle(self, job_id: JobId, token: int, outcome: Outcome) -> None:
        """End an attempt."""
        now = self.store.now()
        assert (await self.store.settle(Settlement(job_id, token, outcome, now, now))).written

    async def publish_all(self) -> None:
        """Look until nothing is left to publish."""
        while await self.relay.publish_unpublished():
            pass

    @asynccontextmanager
    async def relaying(self) -> AsyncIterator[None]:
        """Let the relay run."""
        running = asyncio.create_task(self.relay.run())
        try:
            yield
        finally:
            running.cancel()
            await asyncio.wait([running])
            assert running.cancelled(), running.exception()


@asynccontextmanager
async def working(
    url: str,
    make_transport: MakeTransport = embedded,
    *,
    identity: WorkerIdentity | None = None,
    lease: timedelta = timedelta(seconds=30),
    leases: Leases | None = None,
    store_class: type[SqlStore] = SqlStore,
    record: Sequence[type[Event]] = (),
    **relay: Any,
) -> AsyncIterator[RelayingWorker]:
    """A registered worker; ``relay``: keywords of `Relay`."""
    events = Events()
    recorder = EventRecorder(events, *record)
    store = store_class(url, jobs_table="orm_jobs", leases=leases or Leases(), clock=clock, events=events)
    await store.open()
    await store.register(identity or living_process(), [QUEUE], lease)
    transport = make_transport(events)
    await transport.start()
    assert await transport.wait_connected(20)
    dispatcher = Dispatcher(transport, store, clock, events, config=BrokerConfig())
    relaying = Relay(store, transport, dispatcher, clock, events, **{"queues": [QUEUE], "interval": NEVER, **relay})
    transport.on_room = relaying.wake
    try:
        yield RelayingWorker(store, transport, relaying, recorder)
    finally:
        await transport.close()
        await store.close()


def living_process() -> WorkerIdentity:
    """An identity of its own for one of several workers in this process."""
    return replace(_HERE, id=f"{clock.random_bits(64):016x}")


def dead_process() -> WorkerIdentity:
    """The identity of a worker whose process is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return replace(living_process(), pid=process.pid)
