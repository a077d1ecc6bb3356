"""What a worker does to lanes and lobbies on the broker: looks, consumers, fresh tokens, deletion."""

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
from jq_actors.transport.rabbitmq.amqp.consuming import Bury, ConsumingChannel, Held, Taker
from jq_actors.transport.rabbitmq.amqp.link import Link
from jq_actors.transport.rabbitmq.consumer import Consumer, consumer_arguments
from jq_actors.transport.rabbitmq.lane_names import Why, lane_name
from jq_actors.transport.rabbitmq.topology import Topology, delete_if_unused, look

from .lane_channel import LaneChannel
from .offering import Offering
from .relief import Reliefs
from .seat import End, Seat

PREFETCH, PREFETCH_OF_PARTITION = 10, 50
"""Messages on their way to a worker, so that the next one is there when one has ended."""
CHANNELS = 4
"""All consumers of classic lanes share these."""
CHANNELS_OF_QUORUM = 1_000
"""So many quorum lanes have a channel each, more share them: see `ending.leave`. A connection may have 2,047."""
AT_ONCE = 32
"""Lanes that begin to be served at the same time, such as all of them after a reconnect."""
FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.5
"""Bounds, in seconds, of the pause before a further look whether a cancelled consumer is still counted; it doubles."""
COUNTED = 5.0
"""So long it may be, in seconds; then the broker is very busy, or it is another's, and the token goes back."""


@dataclass(frozen=True, slots=True)
class Consuming:
    """A consumer of a lane."""

    channel: LaneChannel
    tag: str
    seen: QueueDepth
    """The lane, right after it had begun."""


class Access:
    """Over the consumer's connection; told by the broker of the end of consumers and channels."""

    def __init__(
        self, config: BrokerConfig, topology: Topology, consumer: Consumer, offering: Offering, bury: Bury,
        clock: Clock, events: Events,
    ) -> None:  # fmt: skip
        self.clock, self.events = clock, events
        self.longest_hold = config.delivery_timeout.total_seconds() / 3
        """Seconds that a token may be held: a channel is closed whose deliveries stay unacked for too long."""
        self.is_quorum = topology.is_quorum
        """Whether lanes are quorum queues."""
        self._config, self._topology = config, topology
        self._connection, self._offering, self._bury = consumer.connection, offering, bury
        self._channels = Channels(LaneChannel, CHANNELS_OF_QUORUM if self.is_quorum else CHANNELS, self, events)
        self._reliefs = Reliefs()
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._tags = itertools.count(1)

    def prefetch(self, lane: Lane) -> int:
        """Most unacked messages of one consumer of ``lane``."""
        if lane.partition is not None:
            return PREFETCH_OF_PARTITION
        # Of several consumers of a group none may hold what comes before another's.
        return 1 if lane.seats > 1 else PREFETCH

    def deletes(self, lane: Lane) -> bool:
        """Whether ``lane`` is deleted when it is idle.

        Quorum queues know no if-empty. With several seats nobody stands in for who gives back: see `ending.leave`.
        """
        return not self.is_quorum and lane.seats == 1

    def name(self, lane: Lane) -> str:
        """The broker's name of ``lane``."""
        return lane_name(self._topology.namespace, lane)

    async def look(self, lane: Lane) -> QueueDepth | None:
        """What is in ``lane``, and how many consume it; ``None``: there is none.

        Raises:
          TransportError, TimeoutError: no answer.
        """
        return await look(self._link(), self.name(lane))

    async def look_at_lobby(self, queue: str) -> QueueDepth | None:
        """The same of a lobby."""
        return await look(self._link(), self._topology.lobby(queue).name)

    async def attach(self, seat: Seat) -> Consuming:
        """Begin to consume the lane of ``seat``, then look at it.

        Raises:
          TransportError: it could not be done.
        """
        async with self._at_once:
            link = self._link()
            channel = await self._channels.take(link)
            tag = f"lane.{next(self._tags)}"
            seen = await channel.attach(self.name(seat.lane), seat, tag, consumer_arguments(self._config, link))
            return Consuming(channel, tag, seen)

    async def give_back(self, consuming: Consuming, seat: Seat) -> QueueDepth | None:
        """End the consumer of ``seat`` and give back all that it has, then look. The lane has it then.

        Raises TransportError, TimeoutError.
        """
        others = await self._others(seat)
        name, is_clean = self.name(seat.lane), seat.is_clean
        depth = await consuming.channel.give_back(consuming.tag, name, seat.rest, is_clean=is_clean)
        if self.is_quorum and depth.consumers > others:
            return await self._look_beside(others, seat.lane)
        return depth

    async def close(self, consuming: Consuming, seat: Seat) -> QueueDepth | None:
        """The same at one stroke, by closing the channel, if it has no other consumers.

        Raises TransportError, TimeoutError.
        """
        others = await self._others(seat)
        seat.rest()  # the broker takes it
        await consuming.channel.close()
        return await self._look_beside(others, seat.lane)

    async def _others(self, seat: Seat) -> int:
        """How many consumers of its lane are not that of ``seat``, on a quorum queue."""
        if not self.is_quorum or (seat.lane.seats == 1 and seat.taken):
            return 0
        depth = await self.look(seat.lane)
        return 0 if depth is None else max(0, depth.consumers - 1)

    async def _look_beside(self, others: int, lane: Lane) -> QueueDepth | None:
        """Look when a consumer that we have ended is not counted any more beside ``others``.

        A quorum queue counts a cancelled consumer until what was in its hand is ready again, and a closed channel's
        for a moment. Nobody begins to serve before: they would get what comes behind it.
        Raises TransportError, TimeoutError.
        """
        until, pause = self.clock.monotonic() + COUNTED, FIRST_PAUSE
        while (depth := await self.look(lane)) is not None and depth.consumers > others:
            if self.clock.monotonic() >= until:
                raise TransportError(f"{self.name(lane)} counts a consumer that was cancelled.")
            if lane.seats > 1 and pause == LONGEST_PAUSE:
                break  # it is another's, that came meanwhile
            await self.clock.sleep(pause)
            pause = min(LONGEST_PAUSE, 2 * pause)
        return depth

    def relief(self, lane: Lane) -> AbstractAsyncContextManager[None]:
        """See `relief`. Raises TransportError."""
        return self._reliefs.of(self._link(), self.name(lane))

    async def renew(self, lane: Lane, why: Why | None = None) -> bool:
        """Put a fresh token for ``lane`` at its lobby's tail; whether it is there for sure."""
        return await self._offering.renew(lane, why)

    async def delete(self, lane: Lane) -> bool:
        """Delete ``lane`` unless it is consumed or something waits in it; whether it is gone.

        Raises TransportError, TimeoutError.
        """
        gone = await delete_if_unused(self._link(), self.name(lane))
        if gone:
            self._offering.saw_no(lane)
        return gone

    def bury(self, delivery: Held, reason: str) -> None:
        """See `consuming.Told`."""
        self._bury(delivery, reason)

    def flush(self) -> None:
        """Send the acks that are due."""
        self._channels.flush()

    def lose(self) -> None:
        """The connection is gone."""
        self._channels.lose()

    # -- what the broker does

    def on_cancelled(self, taker: Taker) -> None:
        """See `consuming.Told`: the lane was deleted."""
        assert isinstance(taker, Seat)
        taker.give_up(End.LOST)

    def on_channel_lost(self, channel: ConsumingChannel, takers: Collection[Taker], reason: str) -> None:
        """See `consuming.Told`: what was in hand is the broker's again; the tokens are still ours."""
        self._channels.remove(channel)
        for taker in tuple(takers):
            self.on_cancelled(taker)

    def _link(self) -> Link:
        link = self._connection.link
        if link is None:
            raise TransportError(f"No connection to the broker: {self._connection.why_down}")
        return link
