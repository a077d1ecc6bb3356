"""Retry: a failed job runs again, after a pause that grows with each attempt."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from jq_actors.chain.middleware import JobMiddleware
from jq_actors.clock import Clock, SystemClock
from jq_actors.config.durations import LONGEST_DELAY
from jq_actors.errors import JobQueueError
from jq_actors.model.outcome import Failed, Outcome, Retrying

from .options import duration, one_of, whole_number

if TYPE_CHECKING:
    from jq_actors.chain.middleware import Process, RunNext
    from jq_actors.model.running_job import RunningJob

RetryWhen = Callable[[int, BaseException], bool]
"""Takes the number of retries so far and the exception; returns whether to try again."""


class Retry(JobMiddleware):
    """Turns a retryable failure into a retry, with exponential backoff and jitter.

    Options of an actor, or of a single send, override the middleware's: ``max_retries`` (``None``: no limit),
    ``min_backoff`` and ``max_backoff``. Only an actor can have ``throws`` (an exception class or a tuple of them: such
    a failure is final) and ``retry_when`` (a `RetryWhen`, which decides instead of ``max_retries``). An actor that
    raises ``Retry(delay=…)`` sets the pause itself.

    Parameters:
      max_retries: how often a job may run again after its first attempt; 0: never.
      min_backoff: the shortest pause: text such as ``1s``, an int in milliseconds, or a timedelta.
      max_backoff: the longest pause. The ceiling of a pause starts at twice ``min_backoff``, and doubles with each
        retry up to this value.
      jitter: ``full``: the pause is drawn at random between ``min_backoff`` and its ceiling, so that jobs that failed
        together do not come back together. ``none``: the pause is ``min_backoff``, doubled with each retry.

    Raises:
      ValueError: an option is out of range, or ``min_backoff`` is longer than ``max_backoff``.
    """

    def __init__(
        self,
        *,
        max_retries: int = 3,
        min_backoff: str | int | timedelta = "1s",
        max_backoff: str | int | timedelta = "1h",
        jitter: str = "full",
    ) -> None:
        self.max_retries = whole_number("max_retries", max_retries, at_least=0)
        self.min_backoff = duration("min_backoff", min_backoff)
        self.max_backoff = duration("max_backoff", max_backoff)
        self.jitter = one_of("jitter", jitter, ("full", "none"))
        if self.min_backoff > self.max_backoff:
            raise ValueError(f"min_backoff must not be longer than max_backoff, which is {self.max_backoff}")
        self._clock: Clock = SystemClock()

    @property
    def actor_options(self) -> set[str]:
        """The options of an actor; a single send may have all but ``throws`` and ``retry_when``."""
        return {"max_retries", "min_backoff", "max_backoff", "throws", "retry_when"}

    async def on_start(self, process: Process) -> None:
        """Use the process's clock, and its source of randomness, from now on."""
        self._clock = process.clock

    async def run(self, job: RunningJob, call_next: RunNext) -> Outcome:
        """Turn a failure into a retry where that is allowed; return any other outcome as it is."""
        outcome = await call_next(job)
        if not isinstance(outcome, Failed) or not outcome.retryable or not self._allows(job, outcome):
            return outcome
        delay = self._backoff(job) if outcome.delay is None else max(outcome.delay, timedelta())
        return Retrying(outcome.failure, min(delay, LONGEST_DELAY))

    def _allows(self, job: RunningJob, failed: Failed) -> bool:
        retries = job.attempt - 1
        exception = failed.failure.exception or JobQueueError(failed.failure.error)
        of_actor = {} if job.actor is None else job.actor.options
        if isinstance(exception, of_actor.get("throws") or ()):
            return False
        retry_when: RetryWhen | None = of_actor.get("retry_when")
        if retry_when is not None:
            return bool(retry_when(retries, exception))
        max_retries: int | None = job.option("max_retries", self.max_retries)
        return max_retries is None or retries < max_retries

    def _backoff(self, job: RunningJob) -> timedelta:
        retries = job.attempt - 1
        shortest = duration("min_backoff", job.option("min_backoff", self.min_backoff))
        longest = duration("max_backoff", job.option("max_backoff", self.max_backoff))
        if self.jitter == "none":
            return _doubled(shortest, retries, longest)
        ceiling = _doubled(shortest, retries + 1, longest)
        return shortest + self._clock.random() * (ceiling - shortest)


def _doubled(shortest: timedelta, times: int, longest: timedelta) -> timedelta:
    """``shortest``, doubled ``times`` times, at most ``longest`` but never less than ``shortest``."""
    # In floating point, since 2**times exceeds a timedelta when a job retries without limit.
    grown = shortest.total_seconds() * 2.0 ** min(times, 64)
    if grown >= longest.total_seconds():
        return max(shortest, longest)
    return timedelta(seconds=grown)
