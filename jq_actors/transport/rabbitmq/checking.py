"""What ``jq-actors check`` asks a broker: can it be reached, what is it, and are its queues as ours have to be?

Nothing is changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from jq_actors.config.loading import BrokerConfig, format_duration, mask_url
from jq_actors.errors import TransportError
from jq_actors.transport.port import TransportReport
from jq_actors.transport.rabbitmq.amqp.client import RefusedError
from jq_actors.transport.rabbitmq.amqp.link import Link, open_link

from .topology import Queue, Topology, declare, look

SERVERS_TIMEOUT = timedelta(minutes=30)
"""The default of RabbitMQ's ``consumer_timeout``."""
OLDEST = (3, 10)
"""First version whose quorum queues support what our topology needs (TTL, at-least-once dead letters)."""
DEADLOCKING_SAC = (4, 3, 0), (4, 3, 6)
"""Versions whose quorum queues with a single active consumer can lock up for ever (rabbitmq-server#17317)."""


async def check(config: BrokerConfig, topology: Topology, queues: Sequence[str]) -> TransportReport:
    """Check the broker of ``config`` over a separate connection."""
    try:
        link = await open_link(config, "check")
    except TransportError as error:
        return TransportReport(mask_url(config.url), problems=(f"cannot connect: {error}",))
    try:
        wanted = [topology.dead, *(topology.jobs(queue) for queue in queues)]
        problems = [problem for queue in wanted if (problem := await _problem(link, queue)) is not None]
        return TransportReport(link.server, tuple(problems), tuple(warnings_for(config, link.version)))
    finally:
        await link.close()


def warnings_for(config: BrokerConfig, version: tuple[int, ...]) -> list[str]:
    """What may go wrong with a server of ``version``."""
    warnings = []
    timeout = config.delivery_timeout
    if timeout > SERVERS_TIMEOUT and (3, 8, 15) <= version < (4, 3):
        warnings.append(
            f"broker.delivery_timeout is {format_duration(timeout)}; the server's consumer_timeout cannot be "
            f"asked for, and is {format_duration(SERVERS_TIMEOUT)} unless rabbitmq.conf says more"
        )
    if config.queue_type == "quorum" and version < OLDEST:
        warnings.append(f"quorum queues of ours need RabbitMQ {_dotted(OLDEST)}; this is {_dotted(version)}")
    first, last = DEADLOCKING_SAC
    if config.queue_type == "quorum" and first <= version <= last:
        warnings.append(
            "quorum queues with a single active consumer can lock up on RabbitMQ "
            f"{_dotted(first)} to {_dotted(last)} (rabbitmq-server#17317); this is {_dotted(version)}"
        )
    return warnings


async def _problem(link: Link, queue: Queue) -> str | None:
    try:
        if await look(link, queue.name) is not None:
            await declare(link, queue)
    except RefusedError as error:
        return f"the queue {queue.name} cannot be used: {error}"
    except (TransportError, TimeoutError) as error:
        return f"the queue {queue.name} could not be looked at: {str(error) or 'no answer in time'}"
    return None


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version)) or "of an unknown version"
