"""The bridge between the two loops: runs cross to the actor loop, outcomes cross back, many per wake-up.

Waking another thread's loop costs a system call; under load one wake-up carries everything that has gathered.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from dramatiq.middleware import Shutdown

from .current import RunningJob, running
from .loops import LoopThread
from .middleware import RunNext
from .outcome import Interrupted, Outcome, outcome_of


@dataclass(slots=True, eq=False)
class Crossing:
    """One run on the other side."""

    job: RunningJob
    outcome: asyncio.Future[Outcome]
    """Of the I/O loop; never an exception."""
    task: asyncio.Task[None] | None = None
    interrupted: bool = False


class Bridge:
    """Runs jobs on the actor loop for the executor on the I/O loop.

    Each side appends first and then looks whether a wake-up is already on its way; the woken side clears that
    mark first and then takes everything. So nothing appended is ever left lying.
    """

    def __init__(self, io: LoopThread, actors: LoopThread, run: RunNext) -> None:
        self._io, self._actors, self._run = io, actors, run
        self._out: deque[Crossing] = deque()
        self._out_woken = False
        self._back: deque[tuple[Crossing, Outcome]] = deque()
        self._back_woken = False

    def run(self, job: RunningJob) -> Crossing:
        """Run ``job`` on the actor loop; await ``crossing.outcome``."""
        crossing = Crossing(job, self._io.loop.create_future())
        self._out.append(crossing)
        if not self._out_woken:
            self._out_woken = True
            self._actors.loop.call_soon_threadsafe(self._start_all)
        return crossing

    def interrupt(self, crossing: Crossing) -> None:
        """Stop a run because the process shuts down: it ends as `Interrupted`, if it lets itself be stopped."""
        self._actors.loop.call_soon_threadsafe(self._interrupt, crossing)

    # -- on the actor loop

    def _start_all(self) -> None:
        self._out_woken = False
        while self._out:
            crossing = self._out.popleft()
            if crossing.interrupted:
                self._return(crossing, Interrupted())
            else:
                crossing.task = self._actors.loop.create_task(self._cross(crossing))

    async def _cross(self, crossing: Crossing) -> None:
        try:
            with running(crossing.job):
                outcome = await self._run(crossing.job)
        except asyncio.CancelledError as error:
            # Ours, or the actor's own (a cancelled inner task that it let through): that one is a failure.
            outcome = Interrupted() if crossing.interrupted else outcome_of(error)
        except BaseException as error:  # noqa: BLE001 - of a middleware; whatever it raises becomes the outcome
            outcome = outcome_of(error)
        self._return(crossing, outcome)

    def _interrupt(self, crossing: Crossing) -> None:
        crossing.interrupted = True
        crossing.job.thread.interrupt_with = Shutdown
        if crossing.task is not None:
            crossing.task.cancel()

    def _return(self, crossing: Crossing, outcome: Outcome) -> None:
        self._back.append((crossing, outcome))
        if not self._back_woken:
            self._back_woken = True
            self._io.loop.call_soon_threadsafe(self._deliver_all)

    # -- on the I/O loop

    def _deliver_all(self) -> None:
        self._back_woken = False
        while self._back:
            crossing, outcome = self._back.popleft()
            if not crossing.outcome.done():
                crossing.outcome.set_result(outcome)
