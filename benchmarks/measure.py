"""Measure one contestant once, all alike: fill the queue, start the workers, read the probes, stop."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

from .contestants import PROGRAMS, Contestant
from .machine import wait_for_quiet
from .programs.probe import Reading, read_all
from .result import Measurement, Metric
from .servers import delete_queues, drop_database, make_database
from .settings import FOLDER, PROCESSES, ROOT, Settings

MOST_ONE_BY_ONE = 2000
"""Jobs sent one by one, but no more than a third, before the rest is sent in batches, by who has batches."""
START_DEADLINE = 60.0
STOP_DEADLINE = 30.0
POLL = 0.05
WARM_UP = 100
"""Stamped jobs whose latencies do not count: first connections, first bytecode, first page faults."""


class MeasurementError(Exception):
    """A contestant's program failed; the message ends with what it logged last."""


@dataclass(frozen=True)
class Stage:
    """One contestant with everything that it needs, for the time of one measurement."""

    contestant: Contestant
    settings: Settings
    folder: Path
    variables: Mapping[str, str]

    def produce(self, job: str, **options: float) -> dict[str, float]:
        """Run the producer program to its end; seconds by kind of sending."""
        command = [
            str(self.contestant.python(self.settings)),
            "-m",
            f"{PROGRAMS}.produce",
            self.contestant.module,
            job,
        ]
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        log = self.folder / "producer.log"
        with log.open("w") as errors:
            done = subprocess.run(
                command, cwd=ROOT, env=self._environment(), stdout=subprocess.PIPE, stderr=errors, check=False
            )
        if done.returncode != 0:
            raise MeasurementError(f"the producer of {self.contestant.name} failed: {_tail(log)}")
        seconds: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return seconds

    @contextmanager
    def workers(self, amqp_url: str = "") -> Iterator[None]:
        """PROCESSES worker processes, stopped at the end by the signal that a service manager sends.

        ``amqp_url`` leads them to the broker on another way than the producer.
        """
        environment = self._environment()
        if amqp_url:
            environment["JQ_BENCH_AMQP_URL"] = amqp_url
        command = [str(self.contestant.python(self.settings)), "-m", *self.contestant.worker]
        with (self.folder / "worker.log").open("w") as log:
            running = [
                subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)
                for _ in range(self.contestant.commands)
            ]
            try:
                yield
            finally:
                _stop(running)

    def wait_for(self, jobs: int, deadline: float) -> list[Reading]:
        """The probes' readings once ``jobs`` jobs have ended in all, or after ``deadline`` seconds."""
        give_up = time.monotonic_ns() + int(deadline * 1e9)
        while True:
            readings = list(read_all(self.folder).values())
            if sum(reading.count for reading in readings) >= jobs or time.monotonic_ns() >= give_up:
                return readings
            time.sleep(POLL)

    def worker_log(self) -> str:
        """The end of what the workers said."""
        return _tail(self.folder / "worker.log")

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **self.variables}


@contextmanager
def stage(contestant: Contestant, settings: Settings) -> Iterator[Stage]:
    """A clean folder, no queues, an empty database; afterwards only the folder with the logs is left."""
    folder = FOLDER / "runs" / contestant.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    delete_queues(settings.amqp_url, contestant.queues, contestant.exchanges)
    database_url = make_database(settings.database_url, contestant.database) if contestant.uses_database else ""
    try:
        yield Stage(contestant, settings, folder, contestant.environment(settings, folder, database_url))
    finally:
        delete_queues(settings.amqp_url, contestant.queues, contestant.exchanges)
        if contestant.uses_database:
            drop_database(settings.database_url, contestant.database)


def measure_drain(contestant: Contestant, job: str, jobs: int, settings: Settings) -> Measurement:
    """Send ``jobs`` jobs, then start the workers; a drain lasts from the first begin to the last end."""
    each = min(jobs // 3, MOST_ONE_BY_ONE) if contestant.has_batch else jobs
    many = jobs - each
    with stage(contestant, settings) as the_stage:
        wait_for_quiet(settings.patience)
        seconds = the_stage.produce(job, each=each, many=many)
        wait_for_quiet(settings.patience)
        with the_stage.workers():
            readings = the_stage.wait_for(jobs, settings.deadline)
    numbers = {Metric.ENQUEUE: (each - 1) / seconds["each"]}
    # Who has no batches is judged by his loop.
    numbers[Metric.ENQUEUE_MANY] = many / seconds["many"] if many else numbers[Metric.ENQUEUE]
    return _with_drain(numbers, readings, jobs, the_stage)


def measure_latency(contestant: Contestant, job: str, jobs: int, rate: float, settings: Settings) -> Measurement:
    """Send ``jobs`` jobs at ``rate`` a second to waiting workers; latency: `send` to the job's first line."""
    with stage(contestant, settings) as the_stage:
        # This makes tables and queues before the workers look for them; when its jobs ran, they are up.
        the_stage.produce(job, stamped=PROCESSES, rate=rate)
        with the_stage.workers():
            if not _count(the_stage.wait_for(PROCESSES, START_DEADLINE)):
                raise MeasurementError(f"the workers of {contestant.name} run nothing: {the_stage.worker_log()}")
            wait_for_quiet(settings.patience)
            the_stage.produce(job, stamped=WARM_UP + jobs, rate=rate)
            readings = the_stage.wait_for(PROCESSES + WARM_UP + jobs, settings.deadline)
    stamped = sorted(pair for reading in readings for pair in reading.latencies)[PROCESSES + WARM_UP :]
    if len(stamped) < jobs:
        raise MeasurementError(f"{contestant.name} ran {len(stamped)} of {jobs}: {the_stage.worker_log()}")
    cuts = quantiles((latency / 1e6 for _, latency in stamped), n=100)
    return Measurement({Metric.P50: cuts[49], Metric.P99: cuts[98]})


def _with_drain(numbers: dict[Metric, float], readings: list[Reading], jobs: int, the_stage: Stage) -> Measurement:
    done = _count(readings)
    if done == 0:
        raise MeasurementError(f"the workers of {the_stage.contestant.name} ran nothing: {the_stage.worker_log()}")
    first = min(reading.first for reading in readings)
    last = max(reading.last for reading in readings)
    numbers[Metric.DRAIN] = done / ((last - first) / 1e9)
    numbers[Metric.PROCESSOR] = sum(reading.processor for reading in readings) / 1e3 / done
    notes = []
    if done != jobs:
        notes.append(f"{done:,} of {jobs:,} jobs")
    if len(readings) != PROCESSES:
        notes.append(f"{len(readings)} of {PROCESSES} processes ran jobs")
    return Measurement(numbers, "; ".join(notes))


def _count(readings: list[Reading]) -> int:
    return sum(reading.count for reading in readings)


def _stop(running: list[subprocess.Popen[bytes]]) -> None:
    for process in running:
        process.send_signal(signal.SIGTERM)
    for process in running:
        try:
            process.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # a session of its own: it and its children, nobody else
            process.wait()


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])
