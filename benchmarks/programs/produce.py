"""Send jobs through one contestant and say how long it took: `python -m benchmarks.programs.produce …`.

Prints a JSON object: seconds by kind of sending; of the clocked ones, what half and 99 % of them took at most. The
first job is sent before the clock starts: it connects.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Sequence
from statistics import quantiles
from typing import Protocol

BATCH = 1000
"""Jobs handed to one `send_many`."""


class Producer(Protocol):
    """One contestant's sending side. A call returns when the server has confirmed what it sent."""

    def open(self) -> None:
        """Connect, and make what the server needs (queue, tables)."""
        ...

    def send_each(self, job: str, numbers: Sequence[int]) -> None:
        """One job after the other, each confirmed before the next."""
        ...

    def send_many(self, job: str, numbers: Sequence[int]) -> None:
        """By the fastest way that the contestant documents for many jobs at once."""
        ...

    def close(self) -> None:
        """Disconnect."""
        ...


def main() -> None:
    """Read the arguments, send, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("module", help="has a PRODUCER")
    parser.add_argument("job", help="name of a job in jobs.py")
    parser.add_argument("--each", type=int, default=0, help="jobs to send one by one")
    parser.add_argument("--clocked", type=int, default=0, help="jobs to send one by one, the time of each taken")
    parser.add_argument("--many", type=int, default=0, help="jobs to send in batches, after those")
    parser.add_argument("--stamped", type=int, default=0, help="jobs to send with the time as argument, at --rate")
    parser.add_argument("--rate", type=float, default=100, help="stamped jobs a second")
    options = parser.parse_args()
    producer: Producer = importlib.import_module(options.module).PRODUCER
    producer.open()
    seconds = {}
    if options.each:
        producer.send_each(options.job, [0])
        seconds["each"] = _timed(producer, options.job, range(1, options.each))
    if options.clocked:
        seconds |= _clocked(producer, options.job, options.clocked)
    if options.many:
        began = time.perf_counter()
        numbers = range(options.each, options.each + options.many)
        for start in range(0, options.many, BATCH):
            producer.send_many(options.job, numbers[start : start + BATCH])
        seconds["many"] = time.perf_counter() - began
    if options.stamped:
        _send_stamped(producer, options.job, options.stamped, options.rate)
    print(json.dumps(seconds), flush=True)
    producer.close()


def _timed(producer: Producer, job: str, numbers: Sequence[int]) -> float:
    began = time.perf_counter()
    producer.send_each(job, numbers)
    return time.perf_counter() - began


def _clocked(producer: Producer, job: str, count: int) -> dict[str, float]:
    producer.send_each(job, [0])
    cuts = quantiles((_timed(producer, job, [n]) for n in range(1, 1 + count)), n=100)
    return {"p50": cuts[49], "p99": cuts[98]}


def _send_stamped(producer: Producer, job: str, count: int, rate: float) -> None:
    """An open loop: a slow send makes the next one late, not the rate smaller."""
    began = time.perf_counter()
    for n in range(count):
        time.sleep(max(0.0, began + n / rate - time.perf_counter()))
        producer.send_each(job, [time.monotonic_ns()])


if __name__ == "__main__":
    main()
