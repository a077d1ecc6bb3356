"""The lanes that this worker serves: one lobby for each queue, and the timer that they share."""

from __future__ import annotations

from jq_actors.concurrency.background import Background
from jq_actors.model.lane import Fairness
from jq_actors.transport.port import Deliver
from jq_actors.transport.rabbitmq.consumer import Consumer
from jq_actors.transport.rabbitmq.topology import Topology, lobby_label

from .access import Access
from .lobby import Lobby

TICK = 0.05
"""Seconds between two checks of what is due because of the time."""
TICK_REST = 20
"""The pause is at least so many times as long as the last check took: with 10,000 lanes that is 30 ms."""


class Lanes:
    """Serves lanes over the connection of ``consumer``, which consumes the lobbies as it does other queues."""

    def __init__(self, topology: Topology, consumer: Consumer, access: Access) -> None:
        self._topology, self._consumer, self._access = topology, consumer, access
        self._lobbies: dict[str, Lobby] = {}
        self._background = Background(access.events, access.clock)
        self._services = Background(access.events, access.clock)
        self._is_ticking = False
        consumer.on_down = self._lose

    def serve(self, queue: str, slots: int, fairness: Fairness, deliver: Deliver) -> None:
        """Serve the lanes of ``queue``. If they are served already, ``slots`` holds from the next connection on."""
        lobby = self._lobbies.get(queue)
        if lobby is None or lobby.is_stopped:
            lobby = self._lobbies[queue] = Lobby(queue, slots, fairness, deliver, self._access, self._services.send)
        lobby.slots, lobby.fairness, lobby.deliver = slots, fairness, deliver
        self._consumer.want(lobby_label(queue), slots, lobby.take, self._topology.lobby(queue))
        if not self._is_ticking:
            self._is_ticking = True
            self._background.keep("lanes", self._tick)

    async def stop(self, timeout: float) -> None:
        """Serve no more. When this returns, lanes with nothing in the worker's hand are returned.

        The lobbies must not be consumed any more, or the tokens would come back here.
        """
        lobbies = self._lobbies.values()
        for lobby in lobbies:
            lobby.stop()
        deadline = self._access.clock.monotonic() + timeout
        while self._access.clock.monotonic() < deadline and any(lobby.free_services for lobby in lobbies):
            await self._access.clock.sleep(TICK)

    async def close(self) -> None:
        """Send the acks that are due. The end of the connection returns the rest."""
        await self._background.stop()
        self._is_ticking = False
        self._access.channels.flush()

    async def closed(self, timeout: float) -> None:
        """Wait for the services to notice that the connection is gone."""
        await self._services.errands(timeout)

    async def _tick(self) -> None:
        clock = self._access.clock
        while True:
            began = clock.monotonic()
            for lobby in self._lobbies.values():
                lobby.tick()
            await clock.sleep(max(TICK, TICK_REST * (clock.monotonic() - began)))

    def _lose(self) -> None:
        self._access.channels.lose()
        for lobby in self._lobbies.values():
            lobby.lose()
