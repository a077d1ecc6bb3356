"""TimeLimit: an attempt that takes too long is stopped and fails."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from math import inf
from typing import TYPE_CHECKING

from dramatiq.middleware import TimeLimitExceeded

from jq_actors.chain.middleware import JobMiddleware
from jq_actors.config.durations import format_duration
from jq_actors.model.outcome import Failed, Outcome, failure_of

from .options import duration

if TYPE_CHECKING:
    from jq_actors.chain.middleware import RunNext
    from jq_actors.model.running_job import RunningJob

SHORTEST = timedelta(milliseconds=1)


class TimeLimit(JobMiddleware):
    """Stops an attempt that takes too long; it fails, retryably, with a `dramatiq.middleware.TimeLimitExceeded`.

    An async actor is cancelled: it sees ``asyncio.CancelledError``, and may clean up. In the thread of a sync actor,
    `TimeLimitExceeded` is raised. Code that does not return to the interpreter (a C call, a long ``sleep``) sees it
    only when it does, and until then the attempt is not over. If the actor finishes nevertheless, its own outcome
    counts.

    The option ``time_limit`` of an actor, or of a single send, overrides the middleware's: an int in milliseconds, a
    timedelta or text such as ``30s``; ``None`` or infinity: no limit.

    Parameters:
      limit: how long one attempt may take, as text such as ``10m``, an int in milliseconds, or a timedelta. At least
        1 ms. ``None``: no limit.

    Raises:
      ValueError: the limit is out of range.
    """

    def __init__(self, *, limit: str | int | timedelta | None = "10m") -> None:
        self.limit = None if limit is None else duration("limit", limit, at_least=SHORTEST)

    @property
    def actor_options(self) -> set[str]:
        """The options of an actor and of a single send."""
        return {"time_limit"}

    async def run(self, job: RunningJob, call_next: RunNext) -> Outcome:
        """Run the attempt under its limit."""
        limit = self._limit_of(job)
        if limit is None:
            return await call_next(job)
        scope = asyncio.timeout(limit.total_seconds())
        try:
            async with scope:
                return await call_next(job)
        except TimeoutError as error:
            if not scope.expired():
                raise  # a TimeoutError of an inner layer
            exceeded = TimeLimitExceeded(f"The attempt took longer than its limit of {format_duration(limit)}.")
            exceeded.__cause__ = error  # its traceback shows where the actor was
            return Failed(failure_of(exceeded))

    def _limit_of(self, job: RunningJob) -> timedelta | None:
        limit = job.option("time_limit", self.limit)
        if limit is None or limit == inf:
            return None
        return duration("time_limit", limit, at_least=SHORTEST)
