"""Tasks that nobody waits for: kept running, or run to completion; a failure is always reported."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from jq_actors.clock import Clock
from jq_actors.events import Events, TaskFailed
from jq_actors.model.outcome import failure_of

RESTART_DELAY = 1.0
"""Seconds before a kept task that failed is started again."""


class Background:
    """The background tasks of one component. An error in a task stops neither the component nor the process."""

    def __init__(self, events: Events, clock: Clock) -> None:
        self._events, self._clock = events, clock
        self._kept: list[asyncio.Task[None]] = []
        self._errands: set[asyncio.Task[bool]] = set()

    def keep(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run ``run`` until it returns, or until `stop`; start it again when it raises."""
        self._kept.append(asyncio.get_running_loop().create_task(self._supervise(name, run), name=name))

    def send(self, name: str, errand: Coroutine[Any, Any, None]) -> None:
        """Run ``errand`` to completion in the background. It is never cancelled."""
        task = asyncio.get_running_loop().create_task(self._completed(name, errand), name=name)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    async def errands(self, timeout: float) -> None:
        """Wait until all errands are done, for at most ``timeout`` seconds."""
        if self._errands:
            await asyncio.wait(self._errands, timeout=timeout)

    async def stop(self) -> None:
        """Cancel the kept tasks. Errands continue."""
        kept, self._kept = self._kept, []
        for task in kept:
            task.cancel()
        if kept:
            await asyncio.wait(kept)

    async def _supervise(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        while not await self._completed(name, run()):
            await self._clock.sleep(RESTART_DELAY)

    async def _completed(self, name: str, work: Awaitable[None]) -> bool:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - a mistake of ours, whatever it is
            failure = failure_of(error)
            self._events.emit(TaskFailed(name, failure.error, failure.traceback))
            return False
        return True
