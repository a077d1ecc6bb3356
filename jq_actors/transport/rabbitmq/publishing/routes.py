"""Turns what is to be sent into messages, and declares what each of them needs on the broker to arrive."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from jq_actors.clock import Clock
from jq_actors.errors import TransportError
from jq_actors.model.lane import Lane
from jq_actors.transport.port import Outgoing
from jq_actors.transport.rabbitmq.amqp import wire
from jq_actors.transport.rabbitmq.amqp.consuming import RabbitDelivery
from jq_actors.transport.rabbitmq.amqp.link import Link
from jq_actors.transport.rabbitmq.lane_names import Why, token_of
from jq_actors.transport.rabbitmq.topology import Queue, Topology

from .delay import LONGEST, Delays
from .outgoing import MAX_LABEL, OutgoingMessage

MAX_REASON = 1000
"""Characters of the reason that go into the header of a buried delivery."""
MAX_HEADERS = 64 * 1024
"""Bytes. A delivery with larger headers is buried without them, because a header has to fit into one frame."""
TRUST = 10.0
"""Seconds for which a lane that was seen is assumed to exist. After that it is declared before something is sent to it.
Otherwise, of several messages to a lane that was deleted, the first could come back while a later one finds the lane
that somebody else has just declared again, and overtakes the first."""
LANES_REMEMBERED = 20_000


class Routes:
    """The routes to the queues of one namespace."""

    def __init__(self, topology: Topology, clock: Clock) -> None:
        self._topology, self._clock = topology, clock
        self._delays = Delays(topology)
        self._seen: dict[str, float] = {}

    def to_jobs(self, outgoing: Outgoing) -> OutgoingMessage:
        """The message for one dispatch of a job."""
        if outgoing.lane is not None and outgoing.delay is None:
            return self._to_lane(outgoing, outgoing.lane)
        delay = outgoing.delay if outgoing.delay is not None and outgoing.delay > timedelta() else None
        exchange, routing_key = "", f"{self._topology.namespace}.{outgoing.queue}"
        if delay is not None:
            exchange, routing_key = self._delays.route(outgoing.queue, delay)
        return OutgoingMessage(
            outgoing.queue,
            exchange,
            routing_key,
            f"{outgoing.job_id}.{outgoing.dispatch}",
            outgoing.priority,
            {"jq-job": outgoing.job_id},
            outgoing.body,
            delay,
        )

    def to_lobby(self, lane: Lane, why: Why | None = None) -> OutgoingMessage:
        """A token for ``lane``."""
        lobby = self._topology.lobby(lane.queue)
        return OutgoingMessage(lane.queue, "", lobby.name, "token", 0, {}, token_of(lane, why), home=lobby)

    def to_dead(self, delivery: RabbitDelivery, reason: str) -> OutgoingMessage:
        """The message that buries ``delivery``, with the headers of the delivery and our two."""
        ours = {"jq-reason": reason[:MAX_REASON], "jq-queue": delivery.queue}
        headers = wire.read_headers(delivery.header, MAX_HEADERS) | ours
        label = wire.label_of(wire.read_message_id(delivery.header))[:MAX_LABEL] or "buried"
        return OutgoingMessage(None, "", self._topology.dead.name, label, 0, headers, delivery.body)

    async def prepare(self, link: Link, message: OutgoingMessage) -> None:
        """Declare what ``message`` needs, before it is sent on a route that is not known to be open.

        Raises:
          TransportError: it could not be done, or the delay is too long.
        """
        if message.home is not None:
            await self._declare(link, message.home)
            return
        if message.delay is not None and message.delay > LONGEST:
            raise TransportError(f"a delay of {message.delay} is longer than {LONGEST}, the longest that is possible")
        await self._delays.prepare(link, _queue_of(message))

    def doubt(self) -> None:
        """A publishing channel was lost: trust nothing that was declared before. See `Delays.doubt`."""
        self._delays.doubt()
        self._seen.clear()

    def is_open(self, message: OutgoingMessage) -> bool:
        """Whether ``message`` may be sent to its lane or lobby without declaring that first."""
        if message.home is None:
            return False
        seen = self._seen.get(message.home.name)
        return seen is not None and self._clock.monotonic() - seen < TRUST

    def saw(self, lane: Lane, *, exists: bool) -> None:
        """Note whether a look at ``lane`` has found it."""
        name = self._topology.lane(lane).name
        if exists:
            self._remember(name)
        else:
            self._seen.pop(name, None)

    async def restore(self, link: Link, message: OutgoingMessage) -> None:
        """Declare what ``message`` needs, after no queue took it.

        Raises:
          TransportError: it could not be done.
        """
        if message.home is not None:
            await self._declare(link, message.home)
        elif message.queue is None:
            await self._topology.declare(link, self._topology.dead)
        elif message.delay is not None:
            await self._delays.rebuild(link, message.queue)
        else:
            await self._topology.declare(link, self._topology.jobs(message.queue))

    def _to_lane(self, outgoing: Outgoing, lane: Lane) -> OutgoingMessage:
        headers: dict[str, Any] = {"jq-job": outgoing.job_id}
        if lane.partition is not None and outgoing.group is not None:
            headers[wire.GROUP_HEADER] = outgoing.group
        home = self._topology.lane(lane)
        label = f"{outgoing.job_id}.{outgoing.dispatch}"
        # Never a priority: the lane keeps the order of sending.
        return OutgoingMessage(outgoing.queue, "", home.name, label, 0, headers, outgoing.body, home=home)

    async def _declare(self, link: Link, home: Queue) -> None:
        await self._topology.declare(link, home)
        self._remember(home.name)

    def _remember(self, name: str) -> None:
        now = self._clock.monotonic()
        if len(self._seen) >= LANES_REMEMBERED:
            self._seen = {known: seen for known, seen in self._seen.items() if now - seen < TRUST}
        self._seen[name] = now


def _queue_of(message: OutgoingMessage) -> str:
    assert message.queue is not None, "a delivery is buried without a delay"
    return message.queue
