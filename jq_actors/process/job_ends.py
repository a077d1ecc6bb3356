"""Callers in this process that wait for the end of a job: a job that ends here wakes them at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jq_actors.clock import Clock
from jq_actors.concurrency.doorbell import Doorbell
from jq_actors.events import Events, JobFailed, JobFinished
from jq_actors.model.job import JobId


class Ends:
    """The doorbells of waiting callers; on the I/O loop. It listens to events only while somebody waits."""

    def __init__(self, clock: Clock, events: Events) -> None:
        self._clock, self._events = clock, events
        self._bells: dict[JobId, set[Doorbell]] = {}
        self._unsubscribes: list[Callable[[], None]] = []

    @contextmanager
    def awaited(self, job_id: JobId) -> Iterator[Doorbell]:
        """A bell that rings when the job has ended or failed in this process; by then its row says so."""
        if not self._bells:
            # When this process finds a dead worker, only `JobFailed` is emitted for that worker's job.
            subscribe = self._events.subscribe
            self._unsubscribes = [subscribe(JobFinished, self._ring), subscribe(JobFailed, self._ring)]
        bell = Doorbell(self._clock)
        self._bells.setdefault(job_id, set()).add(bell)
        try:
            yield bell
        finally:
            self._bells[job_id].discard(bell)
            if not self._bells[job_id]:
                del self._bells[job_id]
            if not self._bells:
                for unsubscribe in self._unsubscribes:
                    unsubscribe()

    def _ring(self, event: JobFinished | JobFailed) -> None:
        for bell in self._bells.get(event.job_id, ()):
            bell.ring()
