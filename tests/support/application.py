"""An application in the test's own process, with its own broker, and with Dramatiq's worker on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dramatiq

from jq_actors import Job, JobBroker, jobs
from jq_actors.events import Event

from .waiting import eventually_sync

Configuration = Mapping[str, Any]


class Application:
    """A user's application: actors, a broker, and optionally a worker. Create one with `running`."""

    def __init__(self, configuration: Configuration) -> None:
        self.broker = JobBroker(configuration)
        self.events: list[Event] = []
        dramatiq.set_broker(self.broker)

    def record(self, *kinds: type[Event]) -> None:
        """Record the events of these classes in ``events``."""
        for kind in kinds:
            self.broker.events.subscribe(kind, self.events.append)

    def of(self, kind: type[Event]) -> list[Any]:
        """The recorded events of this class."""
        return [event for event in tuple(self.events) if isinstance(event, kind)]

    @contextmanager
    def worker(self, threads: int = 4, queues: set[str] | None = None) -> Iterator[dramatiq.Worker]:
        """Run Dramatiq's worker; it drains at the end of the block."""
        worker = dramatiq.Worker(self.broker, queues=queues, worker_threads=threads, worker_timeout=50)
        worker.start()
        try:
            yield worker
        finally:
            worker.stop(timeout=10_000)

    def ended(self, job_id: str, timeout: float = 20.0) -> Job:
        """Wait until the job has ended (or is unhandled), and return it."""

        def look() -> Job | None:
            job = jobs.get(job_id)
            return job if job is not None and (job.state.is_final or job.state == "unhandled") else None

        return eventually_sync(look, timeout, f"the end of job {job_id}, now {jobs.get(job_id)}")

    def wait(self, predicate: Callable[[], object], why: str, timeout: float = 20.0) -> None:
        """Wait until a condition is true."""
        eventually_sync(predicate, timeout, why)


@contextmanager
def running(configuration: Configuration) -> Iterator[Application]:
    """Create an application, and close it at the end of the block."""
    application = Application(configuration)
    try:
        yield application
    finally:
        application.broker.close()


@dataclass(frozen=True, slots=True)
class Place:
    """Where an application runs."""

    name: str
    configuration: dict[str, Any]

    @property
    def has_rows(self) -> bool:
        """Whether jobs have rows."""
        return any("persistence" in layer for layer in self.configuration["middleware"])
