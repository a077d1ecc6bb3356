"""Looks at queues: many at once on one channel, each answered in the order of asking.

A lane is looked at for each token and for each sending. aiormq asks only when it has the answer before, and takes
150 µs of processor time each time; here the questions are built by hand and go out together: 20 µs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiormq.abc import AbstractChannel

from jq_actors.errors import TransportError
from jq_actors.transport.port import QueueDepth

from . import wire
from .frames import FrameTap

MOST = 64
"""Most questions without an answer."""


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    queue: str
    answer: asyncio.Future[QueueDepth | str]


class Looks:
    """The looks over one connection. They declare nothing, and what the broker refuses harms nobody else."""

    def __init__(self, tap: FrameTap, open_channel: Callable[[], Awaitable[AbstractChannel]]) -> None:
        self._tap, self._open_channel = tap, open_channel
        self._waiting: deque[_Look] = deque()
        self._asked: deque[_Look] = deque()
        self._channel: int | None = None
        self._opening: asyncio.Task[None] | None = None
        self._most = MOST
        self._is_due = False

    async def at(self, queue: str) -> QueueDepth | str:
        """What is in the broker's queue ``queue``; or why the broker refuses to say.

        Raises:
          TransportError: the connection is gone.
        """
        look = _Look(queue, asyncio.get_running_loop().create_future())
        self._waiting.append(look)
        self._ask_soon()
        return await look.answer

    def _ask_soon(self) -> None:
        # Once in a turn of the loop: what came meanwhile goes out in one write.
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._ask)

    def _ask(self) -> None:
        self._is_due = False
        if self._channel is None:
            if self._waiting and self._opening is None:
                self._opening = asyncio.get_running_loop().create_task(self._open())
            return
        questions = []
        while self._waiting and len(self._asked) < self._most:
            look = self._waiting.popleft()
            if not look.answer.done():  # else nobody waits for it any more
                self._asked.append(look)
                questions.append(wire.look(self._channel, look.queue))
        if questions:
            self._tap.write(b"".join(questions))

    async def _open(self) -> None:
        try:
            channel = await self._open_channel()
        except TransportError as error:
            waiting, self._waiting = self._waiting, deque()
            for look in waiting:
                if not look.answer.done():
                    look.answer.set_exception(TransportError(str(error)))
        else:
            self._channel = channel.number
            self._tap.attach(channel.number, self)
        finally:
            self._opening = None
            self._ask_soon()

    # -- from the tap

    def on_declared(self, method: bytes) -> None:
        """See `Sink`: the answer to the oldest question."""
        look = self._asked.popleft()
        if not look.answer.done():
            look.answer.set_result(QueueDepth(*wire.read_declared(method)))
        self._most = min(MOST, self._most + 1)
        if self._waiting:
            self._ask_soon()

    def on_closing(self, reason: str) -> None:
        """See `Sink`: the answer to the oldest question is no, and the others get none here."""
        self._channel = None
        if self._asked:
            refused = self._asked.popleft()
            if not refused.answer.done():
                refused.answer.set_result(reason)
            self._most = 1  # where one queue is missing others are, too, and each costs all that was asked behind it
        self._waiting.extendleft(reversed(self._asked))
        self._asked.clear()
        self._ask_soon()

    def on_prefetch_set(self) -> bool:
        """Not on this channel: nothing is consumed here."""
        raise AssertionError("An answer to a qos on a channel for looks.")

    def on_deliver(self, method: bytes, header: bytes, body: bytes) -> None:
        """Not on this channel: nothing is consumed here."""
        raise AssertionError("A delivery on a channel for looks.")

    def on_return(self, method: bytes, header: bytes) -> None:
        """Not on this channel: nothing is published here."""
        raise AssertionError("A return on a channel for looks.")

    def on_confirm(self, tag: int, *, multiple: bool, taken: bool) -> None:
        """Not on this channel: nothing is published here."""
        raise AssertionError("A confirm on a channel for looks.")
