"""Delayed publishes without a plug-in and without a process of ours: timers in the broker (A28, A30).

Only the head of a queue expires, so a queue may hold only messages of one and the same delay. There is one
queue for each power of two: a delay is written in binary, and a message passes the queues of its one-bits
from the longest to the shortest, then goes to its job queue. Each is a queue with a fixed TTL, so nothing
waits behind a longer delay.

The way is the routing key, ``1.0.1. … .{queue}``, which dead-lettering keeps: the topic exchange of level *n*
looks at one bit, and leads to the queue of that level (1) or to the next exchange (0). RabbitMQ drops dead
letters that come to a queue for the second time; here the levels only go down.

Resolution `UNIT`, rounded up, so never early; each hop adds about a millisecond on classic queues and 0.1 s
on quorum queues, a random delay of a year has 14. Time goes on while the broker is down. What finds no queue
in the end is in the dead queue. On classic queues a dead letter that is just on its way when the broker
crashes is lost; on quorum queues it is not. What a person deletes here is made again, but for what is under
way in it.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from jq_actors.transport.rabbitmq.amqp.link import Link, RefusedError, ask
from jq_actors.transport.rabbitmq.topology import Topology, declare

UNIT = timedelta(milliseconds=100)
LEVELS = 29
LONGEST = UNIT * (2**LEVELS - 1)
"""621 days."""


class Delays:
    """The timers of one namespace, made in the broker when the first delayed message needs them."""

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
        """Make sure that a delayed message for the user's ``queue`` will find its way.

        Raises:
          TransportError: that could not be done.
        """
        async with self._lock:
            if link is not self._link:
                if self._is_doubted or not await self._is_there(link):
                    await self._build(link)
                self._link, self._is_doubted = link, False
        # Each time: a binding goes with its queue, and another process may have made that anew.
        try:
            await self._bind(link, queue)
        except RefusedError as error:
            if not error.is_missing:
                raise
            await self.rebuild(link, queue)

    def doubt(self) -> None:
        """A channel was lost, perhaps by a publish to an exchange that somebody has deleted: build anew."""
        self._link, self._is_doubted = None, True

    async def rebuild(self, link: Link, queue: str) -> None:
        """The same, without trusting that what is there is whole: a delayed message came back."""
        async with self._lock:
            await self._build(link)
        await self._bind(link, queue)

    @property
    def _due(self) -> str:
        return self._own("due")

    def _exchange(self, level: int) -> str:
        return self._due if level < 0 else self._own(level)

    def _own(self, name: object) -> str:
        # An "@" is in no name of a user's queue, so none of them can meet one of ours.
        return f"{self._topology.namespace}.delay@{name}"

    async def _is_there(self, link: Link) -> bool:
        try:
            async with link.throw_away_channel() as channel:
                await ask(channel.exchange_declare(self._own("complete"), passive=True))
        except RefusedError as error:
            if not error.is_missing:
                raise
            return False
        return True

    async def _build(self, link: Link) -> None:
        await self._build_due(link)
        for level in range(LEVELS):
            await self._build_level(link, level)
        async with link.throw_away_channel() as channel:
            # Nothing passes it: it is the sign for `_is_there` that all of the above is done.
            await ask(channel.exchange_declare(self._own("complete"), exchange_type="fanout", durable=True))

    async def _build_due(self, link: Link) -> None:
        await declare(link, self._topology.dead)
        homeless = self._own("homeless")
        then: dict[str, Any] = {"alternate-exchange": homeless}
        async with link.throw_away_channel() as channel:
            await ask(channel.exchange_declare(homeless, exchange_type="fanout", durable=True))
            await ask(channel.queue_bind(self._topology.dead.name, homeless))
            await ask(channel.exchange_declare(self._due, exchange_type="topic", durable=True, arguments=then))

    async def _build_level(self, link: Link, level: int) -> None:
        name, below = self._exchange(level), self._exchange(level - 1)
        timer = self._topology.timer(name, UNIT // timedelta(milliseconds=1) << level, then=below)
        await declare(link, timer)
        before = "*." * (LEVELS - 1 - level)
        async with link.throw_away_channel() as channel:
            await ask(channel.exchange_declare(name, exchange_type="topic", durable=True))
            await ask(channel.queue_bind(timer.name, name, f"{before}1.#"))
            await ask(channel.exchange_bind(below, name, f"{before}0.#"))

    async def _bind(self, link: Link, queue: str) -> None:
        jobs = self._topology.jobs(queue)
        await self._topology.declare(link, jobs)
        async with link.throw_away_channel() as channel:
            await ask(channel.queue_bind(jobs.name, self._due, f"#.{_word(queue)}"))


def _word(queue: str) -> str:
    """``queue`` as one word of a routing key: as several, it would match the end of a longer name."""
    return queue.replace(".", "/")
