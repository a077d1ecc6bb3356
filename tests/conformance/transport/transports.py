"""The brokers that the transport suite runs on, and the hands with which its tests take deliveries."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from datetime import timedelta
from typing import Protocol

import pytest

from jq_actors.clock import SystemClock
from jq_actors.config.loading import BrokerConfig
from jq_actors.events import AckLost, Events
from jq_actors.model.job import new_job_ids
from jq_actors.transport.embedded.transport import EmbeddedTransport
from jq_actors.transport.port import Delivery, Outgoing, Transport
from jq_actors.transport.rabbitmq import RabbitTransport
from tests.support.amqp import Probe
from tests.support.proxy import TcpProxy
from tests.support.rabbitmq import GivenRabbitMQ, PrivateRabbitMQ
from tests.support.recorder import EventRecorder
from tests.support.waiting import eventually

DEADLINE = timedelta(seconds=10)
"""The confirm timeout of the transports under test."""

BROKERS = ["rabbitmq", "rabbitmq-quorum"]
UNBOUNDED = ["embedded", *BROKERS]
ALL = ["embedded-with-rows", *UNBOUNDED]

clock = SystemClock()

PRIORITY_QUEUE = "important"
"""The queue whose messages may have priorities."""


class World(Protocol):
    """One broker, for one test. Tests reach it through transports, and look into it from outside."""

    recorder: EventRecorder
    """Records `AckLost`."""

    def make(self) -> Transport:
        """A transport, not yet started."""
        ...

    async def without_broker(self) -> Transport:
        """A transport whose broker is not there."""
        ...

    async def reopen(self, closed: Transport) -> Transport:
        """A connected transport that sees what ``closed`` left."""
        ...

    def dead_letters(self, queue: str) -> list[tuple[bytes, str]]:
        """Body and reason of what was buried from ``queue``; takes it away."""
        ...

    async def close(self) -> None:
        """Close every transport."""
        ...

    async def open(self) -> Transport:
        """A connected transport."""
        transport = self.make()
        await transport.start()
        assert await transport.wait_connected(20)
        return transport


class EmbeddedWorld(World):
    """`EmbeddedTransport`: the world is the transport."""

    def __init__(self, *, has_store: bool) -> None:
        self._has_store = has_store
        self._events = Events()
        self.recorder = EventRecorder(self._events, AckLost)
        self._made: list[EmbeddedTransport] = []

    def make(self) -> EmbeddedTransport:
        transport = EmbeddedTransport(BrokerConfig(), clock, self._events, has_store=self._has_store)
        self._made.append(transport)
        return transport

    async def without_broker(self) -> EmbeddedTransport:
        return self.make()  # it is its own broker, as long as it is open

    async def reopen(self, closed: Transport) -> Transport:
        await closed.start()
        return closed

    def dead_letters(self, queue: str) -> list[tuple[bytes, str]]:
        return [(dead.body, dead.reason) for made in self._made for dead in made.dead if dead.queue == queue]

    async def close(self) -> None:
        for transport in self._made:
            await transport.close()


class RabbitWorld(World):
    """`RabbitTransport` behind a proxy whose connections can be cut."""

    def __init__(self, url: str, namespace: str, *, quorum: bool) -> None:
        self.url, self.namespace, self._quorum = url, namespace, quorum
        self._events = Events()
        self.recorder = EventRecorder(self._events, AckLost)
        self._made: list[Transport] = []
        self._exits = ExitStack()
        self.proxy = self._exits.enter_context(TcpProxy.to(url))

    def make(self) -> Transport:
        return self._make(self.proxy.url(self.url), DEADLINE)

    async def without_broker(self) -> Transport:
        transport = self._make("amqp://guest:guest@127.0.0.1:1/", timedelta(milliseconds=300))
        await transport.start()
        return transport

    async def reopen(self, closed: Transport) -> Transport:
        return await self.open()

    def dead_letters(self, queue: str) -> list[tuple[bytes, str]]:
        found, dead = [], f"{self.namespace}.dead"
        with Probe(self.url) as probe:
            while probe.depth(dead) is not None and (got := probe.get(dead)) is not None:
                headers = got.properties.headers or {}
                if headers["jq-queue"] == queue:  # the tests of a run share the namespace
                    found.append((got.body, str(headers)))
        return found

    async def close(self) -> None:
        for transport in self._made:
            await transport.close()
        self._exits.close()

    def _make(self, url: str, confirm_timeout: timedelta) -> Transport:
        config = BrokerConfig(
            url=url,
            namespace=self.namespace,
            queue_type="quorum" if self._quorum else "classic",
            confirm_timeout=confirm_timeout,
            priority_queues=(PRIORITY_QUEUE,),
        )
        transport = RabbitTransport(config, clock, self._events)
        self._made.append(transport)
        return transport


@asynccontextmanager
async def world_of(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """The world that the fixture's parameter names, open for one test."""
    made = _make_world(request)
    try:
        yield made
    finally:
        await made.close()


def _make_world(request: pytest.FixtureRequest) -> World:
    if request.param.startswith("embedded"):
        return EmbeddedWorld(has_store=request.param == "embedded-with-rows")
    server: PrivateRabbitMQ | GivenRabbitMQ = request.getfixturevalue("rabbitmq")
    quorum = request.param == "rabbitmq-quorum"
    return RabbitWorld(server.url, request.getfixturevalue("namespaces")[quorum], quorum=quorum)


class Hand:
    """Takes deliveries, in the order in which they come."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []

    def __call__(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)

    @property
    def bodies(self) -> list[str]:
        """What came so far."""
        return [delivery.body.decode() for delivery in self.deliveries]

    async def has(self, count: int, timeout: float = 10.0) -> list[Delivery]:
        """Wait until ``count`` deliveries have come, and return the first ``count``."""
        await eventually(lambda: len(self.deliveries) >= count, timeout, f"{count} deliveries")
        return self.deliveries[:count]


class AckingHand(Hand):
    """Acks each delivery at once."""

    def __call__(self, delivery: Delivery) -> None:
        super().__call__(delivery)
        delivery.ack()


def job(
    body: str,
    queue: str,
    *,
    dispatch: int = 1,
    priority: int = 0,
    delay: float | None = None,
    relayed: bool = False,
) -> Outgoing:
    """A message; ``delay`` in seconds."""
    return Outgoing(
        new_job_ids(clock, 1)[0],
        dispatch,
        queue,
        body.encode(),
        priority,
        None if delay is None else timedelta(seconds=delay),
        relayed=relayed,
    )


def jobs(bodies: str, queue: str) -> list[Outgoing]:
    """A message for each word of ``bodies``."""
    return [job(body, queue) for body in bodies.split()]


async def ready_of(transport: Transport, queue: str) -> int:
    """How many messages wait in ``queue``."""
    depth = await transport.depth(queue)
    assert depth is not None
    return depth.ready


async def eventually_ready(transport: Transport, queue: str, count: int) -> None:
    """Wait until ``count`` messages wait in ``queue``: a broker counts acks and requeues a moment later."""

    async def is_so() -> bool:
        return await ready_of(transport, queue) == count

    await eventually(is_so, why=f"{count} messages to wait in {queue}")
