"""The lobby of one queue in this worker: its tokens, the services of its lanes, and its idle lanes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from jq_actors.errors import TransportError
from jq_actors.model.lane import Fairness, Lane
from jq_actors.transport.port import Deliver, QueueDepth
from jq_actors.transport.rabbitmq.amqp.consuming import RabbitDelivery
from jq_actors.transport.rabbitmq.lane_names import Why, lane_of

from .access import Access
from .service import LaneService

FRESH = 0.1
"""Seconds for which all lanes may use the same look at the lobby."""
QUIET_SWEEP = 0.01
"""Seconds until a look at the lobby decides whether lanes that fell quiet free their slots or wait for more work."""

Send = Callable[[str, Coroutine[Any, Any, None]], None]
"""Runs a coroutine that nobody waits for; see `Background.send`."""


class Lobby:
    """Takes the tokens of ``queue``, at most ``slots`` at once, and serves the lanes that they name."""

    def __init__(
        self, queue: str, slots: int, fairness: Fairness, deliver: Deliver, access: Access, send: Send
    ) -> None:
        self.queue, self.slots, self.fairness, self.deliver = queue, slots, fairness, deliver
        self.is_stopped = False
        self.served = 0
        """How many lanes are served now."""
        self._access, self._send = access, send
        self._waiting: deque[tuple[Lane, RabbitDelivery]] = deque()
        self._services: dict[str, list[LaneService]] = {}
        self._quiet: set[LaneService] = set()
        self._idle: dict[str, tuple[Lane, float]] = {}
        """Lanes that were left empty, and since when. Other workers may serve or delete them unnoticed."""
        self._is_reminding = self._is_sweeping = False
        self._depth: QueueDepth | None = None
        self._looked_at = float("-inf")
        self._looking = asyncio.Lock()

    @property
    def has_free_slot(self) -> bool:
        """Whether this worker could serve one more lane. If not, the broker may hold tokens back."""
        return self.served + len(self._waiting) < self.slots

    @property
    def free_services(self) -> list[LaneService]:
        """The services with nothing in the worker's hand."""
        return [service for service in self._all() if not service.is_busy]

    def take(self, token: RabbitDelivery) -> None:
        """Serve the lane of ``token``, as soon as a slot is free."""
        if self.is_stopped:
            token.requeue()
            return
        try:
            lane = lane_of(token.body)
        except (ValueError, RecursionError) as error:
            token.bury(f"not a token: {error}")
            return
        self._waiting.append((lane, token))
        self._fill()
        if not self.has_free_slot:
            self._end_quiet_ones(tokens_wait=True)

    def stop(self) -> None:
        """Serve no more. Lanes with nothing in hand are returned now, the others when their last job has finished."""
        self.is_stopped = True
        while self._waiting:
            self._waiting.popleft()[1].requeue()
        for service in self._all():
            service.stop()

    def lose(self) -> None:
        """The connection is gone, and all tokens with it."""
        self._waiting.clear()
        self._looked_at = float("-inf")
        for service in self._all():
            service.lose()

    def tick(self) -> None:
        """Do what is due because of the time."""
        now = self._access.clock.monotonic()
        for service in self._all():
            service.tick(now)
        if self._idle and not self._is_reminding and not self.is_stopped:
            self._remind_of_due(now)

    def others_serving(self, service: LaneService) -> int:
        """How many other services here are for the lane of ``service``."""
        return sum(other is not service for other in self._services.get(self._access.name(service.lane), ()))

    def fell_quiet(self, service: LaneService) -> None:
        """The lane of ``service`` has no work: a look at the lobby will decide what becomes of its slot."""
        self._quiet.add(service)
        if not self._is_sweeping:
            self._is_sweeping = True
            self._send(f"quiet lanes of {self.queue}", self._end_quiet_soon())

    def recent_depth(self) -> QueueDepth | None:
        """The last look at the lobby, if it is not older than `FRESH`."""
        return self._depth if self._access.clock.monotonic() - self._looked_at < FRESH else None

    async def depth(self) -> QueueDepth | None:
        """Look at the lobby, once for all who ask at the same time. Raises TransportError, TimeoutError."""
        async with self._looking:
            if self.recent_depth() is None:
                self._depth = await self._access.look_at_lobby(self.queue)
                self._looked_at = self._access.clock.monotonic()
            return self._depth

    # -- tokens

    def _fill(self) -> None:
        while self._waiting and self.served < self.slots:
            lane, token = self._waiting.popleft()
            if token.is_open and not self._joins(lane, token):
                self._serve(lane, token)

    def _joins(self, lane: Lane, token: RabbitDelivery) -> bool:
        services = self._services.get(self._access.name(lane), [])
        if len(services) < lane.seats:
            return False
        # A service that does not see all by itself needs the token; otherwise any will do.
        min(services, key=lambda service: service.sees_all).join(token)
        return True

    def _serve(self, lane: Lane, token: RabbitDelivery) -> None:
        service = LaneService(lane, token, self, self._access)
        name = self._access.name(lane)
        self._services.setdefault(name, []).append(service)
        self._idle.pop(name, None)
        self.served += 1
        self._send(f"serving {name}", self._run(service, name))

    async def _run(self, service: LaneService, name: str) -> None:
        try:
            await service.run()
        finally:
            self.served -= 1
            self._quiet.discard(service)
            services = self._services[name]
            services.remove(service)
            if not services:
                del self._services[name]
                if service.left_empty and self._access.deletes(service.lane):
                    self._idle[name] = service.lane, self._access.clock.monotonic()
            self._fill()

    async def _end_quiet_soon(self) -> None:
        try:
            await self._access.clock.sleep(QUIET_SWEEP)
            depth = await self.depth()
        except (TransportError, TimeoutError):
            depth = None
        finally:
            self._is_sweeping = False
        self._end_quiet_ones(tokens_wait=depth is not None and depth.ready > 0)

    def _end_quiet_ones(self, *, tokens_wait: bool) -> None:
        for service in tuple(self._quiet):
            service.end_quiet(is_wanted=tokens_wait or not self.has_free_slot)

    def _all(self) -> list[LaneService]:
        return [service for services in self._services.values() for service in services]

    # -- idle lanes

    def _remind_of_due(self, now: float) -> None:
        idle = self.fairness.idle.total_seconds()
        due = []
        for name, (lane, since) in self._idle.items():
            if now - since < idle:
                break  # they are in the order of their times
            due.append((name, lane))
        if due:
            self._is_reminding = True
            self._send(f"reminding of idle lanes of {self.queue}", self._remind(due))

    async def _remind(self, due: list[tuple[str, Lane]]) -> None:
        """Put tokens for the lanes in ``due``: only a worker that holds one may delete a lane."""
        try:
            for name, lane in due:
                if self._idle.pop(name, None) is not None:  # otherwise it is served again
                    await self._access.put_token(lane, Why.IDLE)  # if that fails, it is deleted after its next use
        finally:
            self._is_reminding = False
