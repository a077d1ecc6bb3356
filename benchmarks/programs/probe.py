"""Records that a job ran, at the same small cost for every contestant.

A job counts in memory; a thread of its process writes the numbers to a file ten times a second: a job
pays about a microsecond and never waits for a disk. CLOCK_MONOTONIC is one clock for all processes of a
machine (clock_gettime(2)): the earliest and the latest reading of several processes can be compared.
"""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

WRITE_INTERVAL = 0.1
"""Seconds between two writes."""


@dataclass
class Reading:
    """What one worker process has recorded so far. Times are nanoseconds of CLOCK_MONOTONIC."""

    count: int = 0
    first: int = 0
    last: int = 0
    processor: int = 0
    """Nanoseconds of processor time that the process took since its first job began, all threads."""
    latencies: list[tuple[int, int]] = field(default_factory=list)
    """(when sent, nanoseconds until the job began), of the jobs that were stamped."""


class Probe:
    """Counts the jobs of this process into ``folder``, one file per process, named by its pid."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._reading = Reading()
        # next() of an itertools.count is one step under the GIL: threads lose no count and need no lock.
        self._counter = itertools.count(1)
        self._starting = threading.Lock()
        self._pid = 0
        self._processor_before = 0

    def began(self) -> None:
        """A job begins."""
        if self._reading.first == 0:
            self._reading.first = time.monotonic_ns()
        if self._pid == 0:
            self._start_writing()

    def ended(self) -> None:
        """A job ends."""
        self._reading.count = next(self._counter)
        self._reading.last = time.monotonic_ns()

    def stamped(self, sent: int) -> None:
        """A job begins; it was sent at ``sent``."""
        self._reading.latencies.append((sent, time.monotonic_ns() - sent))
        self.began()

    def _start_writing(self) -> None:
        # At the first job, not at import: the importing process may be the one that forks the workers.
        with self._starting:
            if self._pid == 0:
                self._pid = os.getpid()
                self._processor_before = time.process_time_ns()
                threading.Thread(target=self._write_forever, name="bench-probe", daemon=True).start()

    def _write_forever(self) -> None:
        target = self._folder / f"{self._pid}.json"
        draft = target.with_suffix(".draft")
        written = -1
        while True:
            if (count := self._reading.count) != written:
                self._reading.processor = time.process_time_ns() - self._processor_before
                draft.write_text(json.dumps(asdict(self._reading)))
                draft.replace(target)
                written = count
            time.sleep(WRITE_INTERVAL)


def read_all(folder: Path) -> dict[int, Reading]:
    """The latest reading of each worker process, by pid."""
    return {int(path.stem): Reading(**json.loads(path.read_text())) for path in folder.glob("*.json")}
