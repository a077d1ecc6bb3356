"""What waited too long goes back; where that counts against it, as a new message."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from jq_actors.events import Events, TaskFailed
from jq_actors.model.command import decode_command
from jq_actors.model.lane import Lane
from jq_actors.transport.port import NotPublished, Outgoing, Published, PublishResult, PublishUnknown
from jq_actors.worker.renewal import Renewal
from tests.support.lives import RecordingDelivery, delivery_of
from tests.support.recorder import EventRecorder


class Broker:
    """The part of a `Transport` that it uses."""

    def __init__(self, result: PublishResult | Exception, *, counts_returns: bool = True) -> None:
        self.counts_returns, self._result = counts_returns, result
        self.published: list[Outgoing] = []

    async def publish(self, batch: Sequence[Outgoing]) -> list[PublishResult]:
        self.published += batch
        if isinstance(self._result, Exception):
            raise self._result
        return [self._result]


async def given_back(broker: Any, delivery: RecordingDelivery, events: Events | None = None) -> None:
    Renewal(broker, events or Events()).give_back(delivery, decode_command(delivery.body))
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_same_dispatch_is_published_and_then_the_old_message_acked() -> None:
    broker, delivery = Broker(Published()), delivery_of("send_mail", 7, queue="mail", priority=4)
    delivery.dispatch = 3
    await given_back(broker, delivery)
    [renewed] = broker.published
    assert (renewed.dispatch, renewed.queue, renewed.body, renewed.priority) == (3, "mail", delivery.body, 4)
    assert delivery.endings == ["ack"]


@pytest.mark.parametrize("result", [NotPublished("away"), PublishUnknown("no answer")], ids=["not", "unknown"])
async def test_what_could_not_be_published_comes_back_itself(result: PublishResult) -> None:
    delivery = delivery_of("send_mail")
    await given_back(Broker(result), delivery)
    assert delivery.endings == ["requeue"]


async def test_a_mistake_of_ours_is_told_and_loses_nothing() -> None:
    events, delivery = Events(), delivery_of("send_mail")
    seen = EventRecorder(events, TaskFailed)
    await given_back(Broker(RuntimeError("a bug")), delivery, events)
    assert delivery.endings == ["requeue"]
    assert [event.error for event in seen.of(TaskFailed)] == ["RuntimeError: a bug"]


@pytest.mark.parametrize("lane", [None, Lane("default", "g")], ids=["not counted", "a lane"])
async def test_where_it_is_not_counted_or_has_a_place_it_is_requeued(lane: Lane | None) -> None:
    broker, delivery = Broker(Published(), counts_returns=lane is not None), delivery_of("send_mail")
    delivery.lane = lane
    await given_back(broker, delivery)
    assert (broker.published, delivery.endings) == ([], ["requeue"])
