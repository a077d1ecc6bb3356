"""What breaks workers and their broker while jobs of groups run. Which worker, a seed draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from random import Random  # noqa: TID251 - seeded: the same faults again
from typing import Any

from tests.support.amqp import Probe
from tests.support.waiting import eventually_sync
from tests.support.workers import WorkerProcess

from . import group_actors
from .order import ENDS
from .site import QUEUE, Sending, Site
from .steps import PATIENCE, SEED, Steps, wait_until_ended
from .supervisor import STOP_TIMEOUT, Supervisor

WORKERS = 3
SETTINGS: dict[str, Any] = {
    "actors": group_actors.__name__,
    "groups": {"quantum": 5},
    "persistence": {"max_crashes": 1000},
    "worker": {"lease": "5s"},
}

TAKES_JOBS = "takes jobs from"
"""What a worker says when it has begun."""


class Breaker:
    """Faults on a site and its workers, by name."""

    def __init__(self, site: Site, supervisor: Supervisor) -> None:
        self._site, self._supervisor = site, supervisor
        self._chance = Random(SEED)
        self.deaths: dict[int, datetime] = {}
        """When processes were killed."""
        self._faults: dict[str, Callable[[], None]] = {
            "kill": self.kill,
            "terminate": self.terminate,
            "cut": site.server.close_connections,
            "restart": site.server.restart,
            "crash": self._crash,
            "wipe": self._wipe,
            "lose queue": self._lose_queue,
        }

    def spread(self, faults: Sequence[str], steps: Steps, sending: Sending) -> None:
        """Send ``steps``, a part for each fault, and break things when a third of what there is then has ended.

        The second half of each part is sent while things break.
        """
        for number, fault in enumerate(faults):
            first, end = (steps.each * n // len(faults) for n in (number, number + 1))
            middle = (first + end + 1) // 2
            ended = self._site.journal.ended()
            steps.send(sending, first, middle)
            wait_until_ended(self._site, ended + (steps.groups * middle - ended) // 3)
            with steps.sent_meanwhile(sending, middle, end):
                self._break(fault)

    def spread_over(self, faults: Sequence[str], steps: Steps) -> None:
        """Break one after the other, so that the work of ``steps``, which are sent, lies evenly around them."""
        for number, fault in enumerate(faults, start=1):
            wait_until_ended(self._site, steps.count * number // (len(faults) + 1))
            self._break(fault)

    def kill(self) -> None:
        """SIGKILL to a worker and its children."""
        worker = self._any_worker()
        pids = worker.children()
        worker.stop_signal()  # from here on it writes nothing: the time of its death is exact
        self.deaths |= dict.fromkeys(pids, self._site.journal.now())
        worker.kill()

    def terminate(self) -> None:
        """SIGTERM to a worker, and wait for its end."""
        worker = self._any_worker()
        worker.terminate()
        assert worker.wait(STOP_TIMEOUT) == 0, worker.text

    def _break(self, fault: str) -> None:
        print(f"{fault} when {self._site.journal.ended()} runs had ended")
        self._faults[fault]()

    def _any_worker(self) -> WorkerProcess:
        # Not one that is just being started: nothing of it would be broken.
        def serving() -> list[WorkerProcess]:
            return [worker for worker in self._supervisor.workers if worker.running and worker.seen(TAKES_JOBS)]

        return self._chance.choice(eventually_sync(serving, STOP_TIMEOUT, "a worker"))

    def _crash(self) -> None:
        self._site.server.kill()
        self._site.server.start()

    def _wipe(self) -> None:
        self._site.server.stop()
        self._site.server.wipe()
        self._site.server.start()

    def _lose_queue(self) -> None:
        """Delete it under its consumers, with the heads of all groups that are in it."""
        with Probe(self._site.server.url) as probe:
            probe.delete(self._site.name(QUEUE))


@contextmanager
def under_fire(site: Site, steps: Steps, faults: Sequence[str], *, all_before: bool = False) -> Iterator[Breaker]:
    """Workers that have got all of ``steps``, and not yet done all of them, in spite of ``faults``.

    ``all_before``: all were sent before the workers came; else many are sent while things break.
    """
    starts = [partial(site.start, threads=8)] * WORKERS
    with site.sending() as sending:
        if all_before:
            steps.send(sending, 0, steps.each)
        with Supervisor(starts) as supervisor:
            breaker = Breaker(site, supervisor)
            if all_before:
                breaker.spread_over(faults, steps)
            else:
                breaker.spread(faults, steps, sending)
            yield breaker


def wait_for_ends(site: Site, steps: Steps) -> None:
    """Wait until the journal tells of the end of each job."""
    eventually_sync(
        lambda: site.journal.jobs_that_ended(ENDS) == steps.count, PATIENCE, f"the end of {steps.count} jobs"
    )
