"""From what is to be sent to letters, and what has to be in the broker so that each one arrives."""

from __future__ import annotations

import struct
from datetime import timedelta
from typing import Any

from pamqp.exceptions import PAMQPException
from pamqp.header import ContentHeader

from jq_actors.clock import Clock
from jq_actors.errors import TransportError
from jq_actors.model.lane import Lane
from jq_actors.transport.port import Outgoing
from jq_actors.transport.rabbitmq.amqp import wire
from jq_actors.transport.rabbitmq.amqp.consuming import Held
from jq_actors.transport.rabbitmq.amqp.link import Link
from jq_actors.transport.rabbitmq.lane_names import Why, token_of
from jq_actors.transport.rabbitmq.topology import Queue, Topology

from .delay import LONGEST, Delays
from .outgoing import MAX_LABEL, Letter

MAX_REASON = 1000
"""Characters of the reason that go into the header of a buried delivery."""
MAX_HEADERS = 64 * 1024
"""Bytes; the headers of a delivery that has more are not buried with it: a header has to fit into one frame."""


TRUST = 10.0
"""Seconds for which a lane that was seen is taken to be there. After that it is declared before something is sent to
it: of several letters to a lane that was deleted, the first could come back while a later one finds the lane that
somebody else has just made again, and overtake it."""
LANES_REMEMBERED = 20_000


class Ways:
    """The ways to the queues of one namespace."""

    def __init__(self, topology: Topology, clock: Clock) -> None:
        self._topology, self._clock = topology, clock
        self._delays = Delays(topology)
        self._seen: dict[str, float] = {}

    def to_jobs(self, outgoing: Outgoing) -> Letter:
        """The letter of one dispatch."""
        if outgoing.lane is not None and outgoing.delay is None:
            return self._to_lane(outgoing, outgoing.lane)
        delay = outgoing.delay if outgoing.delay is not None and outgoing.delay > timedelta() else None
        exchange, routing_key = "", f"{self._topology.namespace}.{outgoing.queue}"
        if delay is not None:
            exchange, routing_key = self._delays.route(outgoing.queue, delay)
        return Letter(
            outgoing.queue,
            exchange,
            routing_key,
            f"{outgoing.job_id}.{outgoing.dispatch}",
            outgoing.priority,
            {"jq-job": outgoing.job_id},
            outgoing.body,
            delay,
        )

    def to_lobby(self, lane: Lane, why: Why | None = None) -> Letter:
        """A token for ``lane``."""
        lobby = self._topology.lobby(lane.queue)
        return Letter(lane.queue, "", lobby.name, "token", 0, {}, token_of(lane, why), home=lobby)

    def to_dead(self, delivery: Held, reason: str) -> Letter:
        """The letter of a delivery that is buried, with its own headers and our two."""
        ours = {"jq-reason": reason[:MAX_REASON], "jq-queue": delivery.queue}
        headers = _headers_of(delivery.header) | ours
        label = wire.label_of(wire.read_message_id(delivery.header))[:MAX_LABEL] or "buried"
        return Letter(None, "", self._topology.dead.name, label, 0, headers, delivery.body)

    async def prepare(self, link: Link, letter: Letter) -> None:
        """Before a sending of ``letter`` whose way is not known to be open.

        Raises:
          TransportError: it could not be done, or its delay is too long.
        """
        if letter.home is not None:
            await self._declare(link, letter.home)
            return
        if letter.delay is not None and letter.delay > LONGEST:
            raise TransportError(f"a delay of {letter.delay} is longer than {LONGEST}, the longest that is possible")
        await self._delays.prepare(link, _queue_of(letter))

    def doubt(self) -> None:
        """A publishing channel was lost; see `Delays.doubt`."""
        self._delays.doubt()
        self._seen.clear()

    def is_open(self, letter: Letter) -> bool:
        """Whether ``letter`` may be sent to its lane or lobby without a declare."""
        if letter.home is None:
            return False
        seen = self._seen.get(letter.home.name)
        return seen is not None and self._clock.monotonic() - seen < TRUST

    def saw(self, lane: Lane, *, exists: bool) -> None:
        """Somebody looked at ``lane``."""
        name = self._topology.lane(lane).name
        if not exists:
            self._seen.pop(name, None)
            return
        self._remember(name)

    async def restore(self, link: Link, letter: Letter) -> None:
        """After no queue took ``letter``.

        Raises:
          TransportError: it could not be done.
        """
        if letter.home is not None:
            await self._declare(link, letter.home)
        elif letter.queue is None:
            await self._topology.declare(link, self._topology.dead)
        elif letter.delay is not None:
            await self._delays.rebuild(link, letter.queue)
        else:
            await self._topology.declare(link, self._topology.jobs(letter.queue))

    def _to_lane(self, outgoing: Outgoing, lane: Lane) -> Letter:
        headers: dict[str, Any] = {"jq-job": outgoing.job_id}
        if lane.partition is not None and outgoing.group is not None:
            headers[wire.GROUP_HEADER] = outgoing.group
        home = self._topology.lane(lane)
        label = f"{outgoing.job_id}.{outgoing.dispatch}"
        # Never a priority: the lane keeps the order of sending.
        return Letter(outgoing.queue, "", home.name, label, 0, headers, outgoing.body, home=home)

    async def _declare(self, link: Link, home: Queue) -> None:
        await self._topology.declare(link, home)
        self._remember(home.name)

    def _remember(self, name: str) -> None:
        now = self._clock.monotonic()
        if len(self._seen) >= LANES_REMEMBERED:
            self._seen = {known: seen for known, seen in self._seen.items() if now - seen < TRUST}
        self._seen[name] = now


def _queue_of(letter: Letter) -> str:
    assert letter.queue is not None, "nothing is buried later"
    return letter.queue


def _headers_of(header: bytes) -> dict[str, Any]:
    content = ContentHeader()
    try:
        content.unmarshal(header)
        headers = dict(content.properties.headers or {})
        return headers if len(wire.table(headers)) <= MAX_HEADERS else {}
    except (PAMQPException, struct.error, ValueError, TypeError, LookupError):
        return {}  # a foreign message with types that pamqp does not know; its body is what counts
