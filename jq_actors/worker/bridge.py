"""The bridge between the two loops: runs cross to the actor loop, outcomes cross back, many per wake-up.

Waking another thread's loop costs a system call; under load one wake-up carries everything that has gathered.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass
from functools import partial

from dramatiq.middleware import Shutdown

from jq_actors.chain.middleware import RunNext
from jq_actors.concurrency.loops import LoopThread
from jq_actors.model.outcome import Failed, Interrupted, Outcome, Retrying, outcome_of
from jq_actors.model.running_job import RunningJob, running


@dataclass(slots=True, eq=False)
class Crossing:
    """One run on the other side."""

    job: RunningJob
    outcome: asyncio.Future[Outcome]
    """Belongs to the I/O loop; never holds an exception."""
    task: asyncio.Task[Outcome] | None = None
    interrupted: bool = False


class Bridge:
    """Runs jobs on the actor loop for the executor on the I/O loop.

    Each side appends first and then checks whether a wake-up is already on its way; the woken side clears that
    mark first and then takes everything. So nothing that was appended is left behind.
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
        """Stop a run because the process shuts down: it ends as `Interrupted`, if it can be stopped."""
        self._actors.loop.call_soon_threadsafe(self._interrupt, crossing)

    # -- on the actor loop

    def _start_all(self) -> None:
        self._out_woken = False
        while self._out:
            crossing = self._out.popleft()
            # In an empty context: what its sender, or another job, has set in its own must not show in this one.
            crossing.task = self._actors.loop.create_task(self._cross(crossing.job), context=Context())
            # A callback, because a coroutine that is cancelled before its first step never runs a line of its own.
            crossing.task.add_done_callback(partial(self._ended, crossing))

    async def _cross(self, job: RunningJob) -> Outcome:
        with running(job):
            return await self._run(job)

    def _interrupt(self, crossing: Crossing) -> None:
        crossing.interrupted = True
        crossing.job.thread.interrupt_with = Shutdown
        if crossing.task is not None:
            crossing.task.cancel()

    def _ended(self, crossing: Crossing, task: asyncio.Task[Outcome]) -> None:
        outcome = _outcome_of(task)
        if crossing.interrupted and _may_be_by_interrupt(task, outcome):
            outcome = Interrupted()
        self._return(crossing, outcome)

    def _return(self, crossing: Crossing, outcome: Outcome) -> None:
        self._back.append((crossing, outcome))
        if not self._back_woken:
            self._back_woken = True
            with suppress(RuntimeError):  # the run could not be stopped, and the I/O loop is closed
                self._io.loop.call_soon_threadsafe(self._deliver_all)

    # -- on the I/O loop

    def _deliver_all(self) -> None:
        self._back_woken = False
        while self._back:
            crossing, outcome = self._back.popleft()
            if not crossing.outcome.done():
                crossing.outcome.set_result(outcome)


def _outcome_of(task: asyncio.Task[Outcome]) -> Outcome:
    if task.cancelled():
        return outcome_of(asyncio.CancelledError("other code in this process cancelled the task of the job"))
    error = task.exception()  # of a middleware; whatever it raises becomes the outcome
    return task.result() if error is None else outcome_of(error)


def _may_be_by_interrupt(task: asyncio.Task[Outcome], outcome: Outcome) -> bool:
    """Whether an interrupted run failed or was cancelled: many actors turn a cancellation into an error.

    It then does not count as an attempt, and runs again elsewhere. An actor that raised `Fail` on purpose has failed.
    """
    return task.cancelled() or isinstance(outcome, Retrying) or (isinstance(outcome, Failed) and outcome.retryable)
