"""What a worker does with lanes and lobbies on the broker: looks, consumers, fresh tokens, deletion."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from jq_actors.clock import Clock
from jq_actors.config.loading import BrokerConfig
from jq_actors.errors import TransportError
from jq_actors.events import Events
from jq_actors.model.lane import Lane
from jq_actors.transport.port import QueueDepth
from jq_actors.transport.rabbitmq.amqp.channels import Channels
from jq_actors.transport.rabbitmq.amqp.consuming import Bury, ConsumingChannel, Subscriber
from jq_actors.transport.rabbitmq.amqp.link import Link
from jq_actors.transport.rabbitmq.consumer import Consumer, consumer_arguments
from jq_actors.transport.rabbitmq.lane_names import lane_name
from jq_actors.transport.rabbitmq.topology import Topology, delete_if_unused, look

from .lane_channel import LaneChannel
from .lane_consumer import End, LaneConsumer
from .offering import Offering
from .relief import Reliefs

PREFETCH, PREFETCH_OF_PARTITION = 10, 50
"""Unacked messages of one consumer, so that the next message is there when a job finishes."""
CHANNELS = 4
"""The consumers of all classic lanes share these."""
CHANNELS_OF_QUORUM = 1_000
"""Up to so many quorum lanes have a channel each, more share them: see `lane_endings.end_consumer`. RabbitMQ allows
2,047 on a connection by default."""
AT_ONCE = 32
"""Consumers that are started at the same time, for example after a reconnect."""
FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.5
"""Bounds, in seconds, of the pause before the next look whether a cancelled consumer is still counted. It doubles."""
COUNTED = 5.0
"""Seconds that a cancelled consumer may still be counted. After that the broker is very busy, or counts the consumer of
another worker, and the token is returned."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """Where a consumer of a lane is."""

    channel: LaneChannel
    tag: str
    seen: QueueDepth
    """The lane, right after the consumer was started."""


class Access:
    """Works over the consumer's connection, and listens for the end of its consumers and channels."""

    def __init__(
        self, config: BrokerConfig, topology: Topology, consumer: Consumer, offering: Offering, bury: Bury,
        clock: Clock, events: Events,
    ) -> None:  # fmt: skip
        self.clock, self.events = clock, events
        self.longest_hold = config.delivery_timeout.total_seconds() / 3
        """Seconds that a token may be held: the broker closes a channel whose deliveries stay unacked for too long."""
        self.is_quorum = topology.is_quorum
        """Whether lanes are quorum queues."""
        self._config, self._topology = config, topology
        self.bury, self.put_token = bury, offering.put_token
        self._connection, self._offering = consumer.connection, offering
        self.channels = Channels(LaneChannel, CHANNELS_OF_QUORUM if self.is_quorum else CHANNELS, self, bury, events)
        self._reliefs = Reliefs()
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._tags = itertools.count(1)

    def prefetch(self, lane: Lane) -> int:
        """How many messages one consumer of ``lane`` may have unacked."""
        if lane.partition is not None:
            return PREFETCH_OF_PARTITION
        # Where a group has several consumers, none may hold a message that another one should start first.
        return 1 if lane.seats > 1 else PREFETCH

    def deletes(self, lane: Lane) -> bool:
        """Whether ``lane`` is deleted when it is idle.

        Quorum queues cannot be deleted only if they are empty. With several seats there is no relief while messages
        are returned: see `lane_endings.end_consumer`.
        """
        return not self.is_quorum and lane.seats == 1

    def name(self, lane: Lane) -> str:
        """The name of the broker's queue for ``lane``."""
        return lane_name(self._topology.namespace, lane)

    async def look(self, lane: Lane) -> QueueDepth | None:
        """How many messages and consumers ``lane`` has; ``None``: it does not exist.

        Raises:
          TransportError, TimeoutError: no answer.
        """
        return await look(self._link(), self.name(lane))

    async def look_at_lobby(self, queue: str) -> QueueDepth | None:
        """The same for the lobby of ``queue``. Raises TransportError, TimeoutError."""
        return await look(self._link(), self._topology.lobby(queue).name)

    async def attach(self, consumer: LaneConsumer) -> Attachment:
        """Start ``consumer`` on its lane, then look at the lane.

        Raises:
          TransportError: it could not be done.
        """
        async with self._at_once:
            link = self._link()
            channel = await self.channels.take(link)
            tag, name = f"lane.{next(self._tags)}", self.name(consumer.lane)
            seen = await channel.attach(name, consumer, tag, consumer_arguments(self._config, link))
            return Attachment(channel, tag, seen)

    async def cancel_and_return(self, attachment: Attachment, consumer: LaneConsumer) -> QueueDepth | None:
        """Cancel ``consumer`` and return all that it has, then look. When this returns, the lane has it back.

        Raises TransportError, TimeoutError.
        """
        others = await self._other_consumers(consumer)
        depth = await attachment.channel.cancel_and_return(
            attachment.tag, self.name(consumer.lane), consumer.take_unfinished, is_clean=consumer.is_clean
        )
        if self.is_quorum and depth.consumers > others:
            return await self._look_when_gone(others, consumer.lane)
        return depth

    async def close_channel(self, attachment: Attachment, consumer: LaneConsumer) -> QueueDepth | None:
        """The same in one step, by closing the channel, which no other consumer may be on.

        Raises TransportError, TimeoutError.
        """
        others = await self._other_consumers(consumer)
        consumer.take_unfinished()  # the broker takes it back
        await attachment.channel.close()
        return await self._look_when_gone(others, consumer.lane)

    async def _other_consumers(self, consumer: LaneConsumer) -> int:
        """How many consumers a quorum lane has beside ``consumer``."""
        if not self.is_quorum or (consumer.lane.seats == 1 and consumer.received):
            return 0
        depth = await self.look(consumer.lane)
        return 0 if depth is None else max(0, depth.consumers - 1)

    async def _look_when_gone(self, others: int, lane: Lane) -> QueueDepth | None:
        """Look once the broker counts no more than ``others`` consumers: without the one that we have ended.

        A quorum queue counts a cancelled consumer until its messages are ready again, and the consumer of a closed
        channel for a moment. Nobody may begin to serve before: they would get what comes behind those messages.
        Raises TransportError, TimeoutError.
        """
        until, pause = self.clock.monotonic() + COUNTED, FIRST_PAUSE
        while (depth := await self.look(lane)) is not None and depth.consumers > others:
            if self.clock.monotonic() >= until:
                raise TransportError(f"{self.name(lane)} still counts a consumer that was cancelled.")
            if lane.seats > 1 and pause == LONGEST_PAUSE:
                break  # the consumer belongs to another worker, which has attached meanwhile
            await self.clock.sleep(pause)
            pause = min(LONGEST_PAUSE, 2 * pause)
        return depth

    def relief(self, lane: Lane) -> AbstractAsyncContextManager[None]:
        """A relief on ``lane``; see the module `relief`. Raises TransportError."""
        return self._reliefs.of(self._link(), self.name(lane))

    async def delete(self, lane: Lane) -> bool:
        """Delete ``lane`` unless it has consumers or messages. Returns whether it is gone.

        Raises TransportError, TimeoutError.
        """
        gone = await delete_if_unused(self._link(), self.name(lane))
        if gone:
            self._offering.forget(lane)
        return gone

    # -- ConsumerListener

    def on_cancelled(self, subscriber: Subscriber) -> None:
        """The lane was deleted."""
        assert isinstance(subscriber, LaneConsumer)
        subscriber.end_with(End.LOST)

    def on_channel_lost(self, channel: ConsumingChannel, subscribers: Collection[Subscriber], reason: str) -> None:
        """The broker takes back what was in hand. The tokens are still ours."""
        self.channels.remove(channel)
        for subscriber in subscribers:
            self.on_cancelled(subscriber)

    def _link(self) -> Link:
        link = self._connection.link
        if link is None:
            raise TransportError(f"No connection to the broker: {self._connection.why_down}")
        return link
