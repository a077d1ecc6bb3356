"""What a worker does to lanes and lobbies on the broker: looks, consumers, fresh tokens, deletion."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Collection

from jq_actors.clock import Clock
from jq_actors.config import BrokerConfig
from jq_actors.errors import TransportError
from jq_actors.events import Events
from jq_actors.transport.port import Lane, QueueDepth

from .channels import Channels
from .consumer import Consumer, consumer_arguments
from .consuming import Bury, ConsumingChannel, Held, Taker
from .lane_names import Why
from .lane_names import lane_name
from .link import Link
from .offering import Offering
from .seat import End, Seat
from .topology import Topology, delete_if_idle, look

CHANNELS = 4
"""All consumers of lanes share these."""
AT_ONCE = 32
"""Lanes that begin to be served at the same time, such as all of them after a reconnect."""
UNCOUNTED_AFTER = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
"""Seconds before each further look whether a cancelled consumer is still counted; then it is another's."""


class Access:
    """Over the consumer's connection; told by the broker of the end of consumers and channels."""

    def __init__(
        self, config: BrokerConfig, topology: Topology, consumer: Consumer, offering: Offering, bury: Bury,
        clock: Clock, events: Events, *, has_store: bool,
    ) -> None:  # fmt: skip
        self.clock, self.events, self.has_store = clock, events, has_store
        self.longest_hold = config.delivery_timeout.total_seconds() / 3
        """Seconds that a token may be held: a channel is closed whose deliveries stay unacked for too long."""
        self._config, self._topology = config, topology
        self._connection, self._offering, self._bury = consumer.connection, offering, bury
        self._channels = Channels(CHANNELS, self, events)
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._tags = itertools.count(1)

    @property
    def deletes(self) -> bool:
        """Whether idle lanes are deleted."""
        return not self._topology.is_quorum  # those know neither if-unused nor if-empty

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

    async def attach(self, seat: Seat) -> tuple[ConsumingChannel, str]:
        """Begin to consume the lane of ``seat``; returns the channel and the consumer's name.

        Raises:
          TransportError: it could not be done.
        """
        async with self._at_once:
            link = self._link()
            channel = await self._channels.take(link)
            tag = f"lane.{next(self._tags)}"
            await channel.consume(self.name(seat.lane), seat, tag, consumer_arguments(self._config, link))
            return channel, tag

    async def uncounted(self, lane: Lane, others: int) -> None:
        """After a cancel: wait until the consumer is not counted any more, that is until at most ``others`` are.

        A quorum queue counts it until what was on its way to it has come back, and that is not ready before, either.
        Raises TransportError, TimeoutError.
        """
        if not self._topology.is_quorum:
            return
        for pause in UNCOUNTED_AFTER:
            depth = await self.look(lane)
            if depth is None or depth.consumers <= others:
                return
            await self.clock.sleep(pause)

    async def renew(self, lane: Lane, why: Why | None = None) -> bool:
        """Put a fresh token for ``lane`` at its lobby's tail; whether it is there for sure."""
        return await self._offering.renew(lane, why)

    async def delete(self, lane: Lane) -> bool:
        """Delete ``lane`` unless it is consumed or something waits in it; whether it is gone.

        The broker does not count what is in somebody's hand: that is for the caller to know (`tokens.may_delete`).
        Raises TransportError, TimeoutError.
        """
        gone = await delete_if_idle(self._link(), self.name(lane))
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
