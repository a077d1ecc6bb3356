"""A `RabbitTransport` for a test, with what it tells."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from jq_actors.clock import SystemClock
from jq_actors.config.loading import BrokerConfig
from jq_actors.events import (
    AckLost,
    BrokerConnected,
    BrokerDisconnected,
    ConsumerConfirmed,
    ConsumerLost,
    Events,
    LaneClosed,
    LaneOpened,
    PublisherBlocked,
    QueueBroken,
    TaskFailed,
)
from jq_actors.transport.rabbitmq import RabbitTransport
from tests.support.recorder import EventRecorder
from tests.support.waiting import eventually

CONNECT = 30.0
"""Seconds that a connection may take; a node that was just killed needs some to come back."""


@dataclass
class Opened:
    """A transport, and the events that it emitted."""

    transport: RabbitTransport
    told: EventRecorder

    async def confirmed(self, *queues: str, timeout: float = CONNECT) -> None:
        """Wait until nothing is missing, and ``queues`` are consumed."""

        def is_so() -> bool:
            health = self.transport.health
            return health.connected and not {*queues} & {*health.missing, *health.broken}

        await eventually(is_so, timeout, f"{queues} to be consumed")

    async def reconnected(self, since: int = 1) -> None:
        """Wait for a consumer connection after that of generation ``since``."""
        await eventually(lambda: self.transport.generation > since, CONNECT, "a new connection")


@asynccontextmanager
async def opened(url: str, namespace: str, **settings: Any) -> AsyncIterator[Opened]:
    """A connected transport; without failed background tasks at its end."""
    events = Events()
    told = EventRecorder(
        events,
        AckLost,
        BrokerConnected,
        BrokerDisconnected,
        ConsumerConfirmed,
        ConsumerLost,
        LaneClosed,
        LaneOpened,
        PublisherBlocked,
        QueueBroken,
        TaskFailed,
    )
    settings.setdefault("confirm_timeout", timedelta(seconds=5))
    config = BrokerConfig(url=url, namespace=namespace, **settings)
    transport = RabbitTransport(config, SystemClock(), events)
    await transport.start()
    try:
        assert await transport.wait_connected(CONNECT)
        yield Opened(transport, told)
    finally:
        await transport.close()
    assert told.of(TaskFailed) == []
