"""The sending side of jq_actors, for all of our programs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dramatiq

from jq_actors import JobActor

COROUTINES = 100


class OurProducer:
    """`send` and `send_many` from a plain thread, as in a web application; `send_async` from coroutines."""

    def __init__(self, actors: Mapping[str, JobActor[[int], Any]]) -> None:
        self._actors = actors

    def open(self) -> None:
        """The first send connects."""

    def send_each(self, job: str, numbers: Sequence[int]) -> None:
        """`send`, each confirmed (and, with persistence, committed)."""
        send = self._actors[job].send
        for n in numbers:
            send(n)

    def send_many(self, job: str, numbers: Sequence[int]) -> None:
        """One `send_many`."""
        self._actors[job].send_many([((n,), {}) for n in numbers])

    def send_together(self, job: str, numbers: Sequence[int]) -> None:
        """`send_async` from COROUTINES coroutines."""
        asyncio.run(self._send_together(job, iter(numbers)))

    def close(self) -> None:
        """Disconnect."""
        dramatiq.get_broker().close()

    async def _send_together(self, job: str, left: Iterator[int]) -> None:
        await asyncio.gather(*(self._send_async(job, left) for _ in range(COROUTINES)))

    async def _send_async(self, job: str, left: Iterator[int]) -> None:
        send = self._actors[job].send_async
        for n in left:
            await send(n)
