"""From what is to be sent to letters, and what has to be in the broker so that each one arrives."""

from __future__ import annotations

import struct
from datetime import timedelta
from typing import Any

from pamqp.exceptions import PAMQPException
from pamqp.header import ContentHeader

from jq_actors.errors import TransportError
from jq_actors.transport.port import Outgoing

from . import wire
from .consuming import RabbitDelivery
from .delay import LONGEST, Delays
from .letters import MAX_LABEL, Letter
from .link import Link
from .topology import Topology

MAX_REASON = 1000
"""Characters of the reason that go into the header of a buried delivery."""
MAX_HEADERS = 64 * 1024
"""Bytes; the headers of a delivery that has more are not buried with it: a header has to fit into one frame."""


class Ways:
    """The ways to the queues of one namespace."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._delays = Delays(topology)

    def to_jobs(self, outgoing: Outgoing) -> Letter:
        """The letter of one dispatch."""
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

    def to_dead(self, delivery: RabbitDelivery, reason: str) -> Letter:
        """The letter of a delivery that is buried, with its own headers and our two."""
        ours = {"jq-reason": reason[:MAX_REASON], "jq-queue": delivery.queue}
        headers = _headers_of(delivery.header) | ours
        label = wire.label_of(wire.read_message_id(delivery.header))[:MAX_LABEL] or "buried"
        return Letter(None, "", self._topology.dead.name, label, 0, headers, delivery.body)

    async def prepare(self, link: Link, letter: Letter) -> None:
        """Before the first sending of a delayed ``letter``.

        Raises:
          TransportError: it could not be done, or its delay is too long.
        """
        if letter.delay is not None and letter.delay > LONGEST:
            raise TransportError(f"a delay of {letter.delay} is longer than {LONGEST}, the longest that is possible")
        await self._delays.prepare(link, _queue_of(letter))

    def doubt(self) -> None:
        """A publishing channel was lost; see `Delays.doubt`."""
        self._delays.doubt()

    async def restore(self, link: Link, letter: Letter) -> None:
        """After no queue took ``letter``.

        Raises:
          TransportError: it could not be done.
        """
        if letter.queue is None:
            await self._topology.declare(link, self._topology.dead)
        elif letter.delay is not None:
            await self._delays.rebuild(link, letter.queue)
        else:
            await self._topology.declare(link, self._topology.jobs(letter.queue))


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
