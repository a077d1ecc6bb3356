"""One contestant on clean servers: its producer, its workers, and what its jobs recorded."""

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

from .contestants import PROGRAMS, Contestant
from .environment import make_peers_environment
from .programs.probe import Reading, read_all
from .programs.produce import Kind
from .servers import delete_queues, drop_database, make_database
from .settings import FOLDER, ROOT, Settings

START_DEADLINE = 60.0
STOP_DEADLINE = 30.0
POLL = 0.05


class MeasurementError(Exception):
    """A contestant's program failed; the message ends with its last log lines."""


@dataclass(frozen=True)
class Stage:
    """One contestant with everything that it needs for one measurement."""

    contestant: Contestant
    settings: Settings
    folder: Path
    variables: Mapping[str, str]

    def produce(self, job: str, kind: Kind, count: int, rate: float = 0.0) -> dict[str, float]:
        """Run the producer program until it exits; returns what it printed."""
        python = str(self.contestant.python(self.settings))
        command = [python, "-m", f"{PROGRAMS}.produce", self.contestant.module, job, kind, str(count), str(rate)]
        log = self.folder / "producer.log"
        with log.open("w") as errors:
            done = subprocess.run(
                command, cwd=ROOT, env=self._environment(), stdout=subprocess.PIPE, stderr=errors, check=False
            )
        if done.returncode != 0:
            raise MeasurementError(f"the producer of {self.contestant.name} failed: {_tail(log)}")
        printed: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return printed

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
        """The last lines of the workers' logs."""
        return _tail(self.folder / "worker.log")

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **self.variables}


@contextmanager
def stage(contestant: Contestant, settings: Settings) -> Iterator[Stage]:
    """A clean folder, no queues, an empty database; afterwards only the folder with the logs is left."""
    if contestant.is_peer:
        make_peers_environment(settings.peers_python)
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
