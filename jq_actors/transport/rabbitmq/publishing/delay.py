"""Delayed messages without a plug-in and without a process of ours: timers in the broker (A28, A30).

Only the head of a queue expires, so all messages in a queue must have the same delay. There is one queue for each power
of two. A delay is written in binary, and a message passes the queues of its one-bits from the longest to the shortest,
then goes to its job queue. Each queue has a fixed TTL, so nothing waits behind a longer delay.

The routing key, ``1.0.1. … .{queue}``, is the route, and dead-lettering keeps it: the topic exchange of level *n*
matches one bit, and leads to the queue of that level (1) or to the next exchange (0). RabbitMQ drops dead letters that
reach a queue for the second time; here the levels only go down.

The resolution is `UNIT`, rounded up, so nothing is early. Each hop adds about a millisecond on classic queues and 0.1 s
on quorum queues; a random delay of a year has 14 hops. Time goes on while the broker is down. A message that finds no
queue at the end goes to the dead queue. A dead letter that is just being moved when the broker crashes is lost on
classic queues, and not on quorum queues. Queues and exchanges that a person deletes are declared again; the messages in
them are gone.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from aio_pika.abc import AbstractExchange

from jq_actors.transport.rabbitmq.amqp.client import ask, unless_missing
from jq_actors.transport.rabbitmq.amqp.link import Link
from jq_actors.transport.rabbitmq.topology import Topology, declare

UNIT = timedelta(milliseconds=100)
LEVELS = 29
LONGEST = UNIT * (2**LEVELS - 1)
"""621 days."""


class Delays:
    """The timers of one namespace, declared when the first delayed message needs them."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._link: Link | None = None
        self._is_doubted = False
        self._lock = asyncio.Lock()

    def route(self, queue: str, delay: timedelta) -> tuple[str, str]:
        """Exchange and routing key to the user's ``queue`` after ``delay``, which is at most `LONGEST`."""
        units = max(1, -(-delay // UNIT))
        bits = ".".join(f"{units:0{LEVELS}b}")
        return self._exchange(units.bit_length() - 1), f"{bits}.{_word(queue)}"

    async def prepare(self, link: Link, queue: str) -> None:
        """Declare what a delayed message for the user's ``queue`` needs.

        Raises:
          TransportError: it could not be done.
        """
        async with self._lock:
            if link is not self._link:
                if self._is_doubted or not await self._is_complete(link):
                    await self._build(link)
                self._link, self._is_doubted = link, False
        # Each time: a binding goes with its queue, and another process may have declared the queue again.
        if await unless_missing(self._bind(link, queue)) is None:
            await self.rebuild(link, queue)

    def doubt(self) -> None:
        """A channel was lost. Somebody may have deleted the exchange that was published to: declare all again."""
        self._link, self._is_doubted = None, True

    async def rebuild(self, link: Link, queue: str) -> None:
        """The same after a delayed message came back, without trusting what is already there."""
        async with self._lock:
            await self._build(link)
        await self._bind(link, queue)

    @property
    def _due(self) -> str:
        return self._own("due")

    def _exchange(self, level: int) -> str:
        return self._due if level < 0 else self._own(level)

    def _own(self, name: object) -> str:
        # No name of a user's queue contains an "@", so none can equal one of ours.
        return f"{self._topology.namespace}.delay@{name}"

    async def _is_complete(self, link: Link) -> bool:
        return await unless_missing(self._complete(link)) is not None

    async def _complete(self, link: Link) -> AbstractExchange:
        async with link.throw_away_channel() as channel:
            return await ask(channel.get_exchange(self._own("complete")))

    async def _build(self, link: Link) -> None:
        await self._build_due(link)
        for level in range(LEVELS):
            await self._build_level(link, level)
        async with link.throw_away_channel() as channel:
            # No message passes it. It says to `_is_complete` that all of the above exists.
            await ask(channel.declare_exchange(self._own("complete"), "fanout", durable=True))

    async def _build_due(self, link: Link) -> None:
        await declare(link, self._topology.dead)
        homeless = self._own("homeless")
        async with link.throw_away_channel() as channel:
            dead = await ask(channel.get_queue(self._topology.dead.name, ensure=False))
            await ask(channel.declare_exchange(homeless, "fanout", durable=True))
            await ask(dead.bind(homeless, ""))
            alternate: dict[str, Any] = {"alternate-exchange": homeless}
            await ask(channel.declare_exchange(self._due, "topic", durable=True, arguments=alternate))

    async def _build_level(self, link: Link, level: int) -> None:
        name = self._exchange(level)
        timer = self._topology.timer(name, UNIT // timedelta(milliseconds=1) << level, then=self._exchange(level - 1))
        await declare(link, timer)
        before = "*." * (LEVELS - 1 - level)
        async with link.throw_away_channel() as channel:
            queue = await ask(channel.get_queue(timer.name, ensure=False))
            below = await ask(channel.get_exchange(self._exchange(level - 1), ensure=False))
            await ask(channel.declare_exchange(name, "topic", durable=True))
            await ask(queue.bind(name, f"{before}1.#"))
            await ask(below.bind(name, f"{before}0.#"))

    async def _bind(self, link: Link, queue: str) -> bool:
        """Bind the queue; returns True, as opposed to `unless_missing`."""
        jobs = self._topology.jobs(queue)
        await self._topology.declare(link, jobs)
        async with link.throw_away_channel() as channel:
            bound = await ask(channel.get_queue(jobs.name, ensure=False))
            await ask(bound.bind(self._due, f"#.{_word(queue)}"))
        return True


def _word(queue: str) -> str:
    """``queue`` as one word of a routing key: as several, it would match the end of a longer name."""
    return queue.replace(".", "/")
