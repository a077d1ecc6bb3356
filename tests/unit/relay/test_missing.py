"""Counting what the broker no longer has: a queue that cannot be looked at holds up no other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from jq_actors.errors import TransportError
from jq_actors.relay.missing import MissingRows
from jq_actors.store.port import JobStore
from jq_actors.transport.port import QueueDepth, Transport

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Broker:
    """Its queues are empty, but those that are ``away``."""

    shared, generation = True, 1

    def __init__(self) -> None:
        self.away = set[str]()

    async def depth(self, queue: str) -> QueueDepth:
        if queue in self.away:
            raise TransportError(f"{queue} has no leader")
        return QueueDepth(0, 0)


class Store:
    """Has three rows of each queue that were published just now."""

    def now(self) -> datetime:
        return NOW

    async def held_deliveries(self, queue: str) -> int:
        return 0

    async def count_published(self, queue: str, before: datetime, up_to: int) -> int:
        return 3 if before >= NOW else 0


async def test_a_queue_that_cannot_be_looked_at_holds_up_no_other_and_may_be_empty_afterwards() -> None:
    broker = Broker()
    queues = ["first", "away", "last"]
    rows = MissingRows(cast(JobStore, Store()), cast(Transport, broker), queues, None, timedelta(minutes=1))
    broker.away = {"away"}

    for _ in range(2):
        with pytest.raises(TransportError, match="away has no leader"):
            await rows.count()

    assert {queue: missing.count for queue, missing in rows.believed.items()} == {"first": 3, "last": 3}

    broker.away = set()
    for _ in range(2):
        await rows.count()

    assert rows.believed["away"].count == 3
