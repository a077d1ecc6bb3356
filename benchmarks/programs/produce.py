"""Sends jobs through one contestant and prints how long it took: `python -m benchmarks.programs.produce …`.

Prints a JSON object: the ``seconds`` that it took; of clocked jobs, the seconds within which half (``p50``) and 99 %
(``p99``) of them were sent; and those of ``closing``, in which a producer may end what it put off. The first job
connects, before the clock starts; stamped jobs have no clock.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Sequence
from enum import StrEnum
from statistics import quantiles
from typing import Protocol, runtime_checkable

BATCH = 1000
"""Jobs handed to one `send_many`."""


class Kind(StrEnum):
    """How jobs are sent."""

    EACH = "each"
    """One by one."""
    CLOCKED = "clocked"
    """One by one, each of them timed."""
    TOGETHER = "together"
    """From many coroutines, each one by one."""
    MANY = "many"
    """In batches."""
    STAMPED = "stamped"
    """One by one at a fixed rate, with the time as argument."""


class Producer(Protocol):
    """One contestant's sending side. A call returns when the server has confirmed what it sent."""

    def open(self) -> None:
        """Connect, and make what the server needs (queue, tables)."""
        ...

    def send_each(self, job: str, numbers: Sequence[int]) -> None:
        """One job after the other, each confirmed before the next."""
        ...

    def send_many(self, job: str, numbers: Sequence[int]) -> None:
        """Send many jobs in the fastest way that the contestant documents."""
        ...

    def close(self) -> None:
        """Disconnect."""
        ...


@runtime_checkable
class CoroutineProducer(Producer, Protocol):
    """A producer that can also send from coroutines."""

    def send_together(self, job: str, numbers: Sequence[int]) -> None:
        """From coroutines, each of which sends one job after the other."""
        ...


def main() -> None:
    """Read the arguments, send, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("module", help="has a PRODUCER")
    parser.add_argument("job", help="name of a job in jobs.py")
    parser.add_argument("kind", type=Kind, choices=list(Kind))
    parser.add_argument("count", type=int, help="jobs to send")
    parser.add_argument("rate", type=float, help="stamped jobs a second")
    options = parser.parse_args()
    producer: Producer = importlib.import_module(options.module).PRODUCER
    producer.open()
    if options.kind is Kind.STAMPED:
        _send_stamped(producer, options.job, options.count, options.rate)
        timings: dict[str, float] = {}
    else:
        producer.send_each(options.job, [0])
        timings = _send(producer, options.job, options.kind, range(1, options.count))
    began = time.perf_counter()
    producer.close()
    print(json.dumps({**timings, "closing": time.perf_counter() - began}), flush=True)


def _send_stamped(producer: Producer, job: str, count: int, rate: float) -> None:
    """Send in an open loop: a slow send delays the next one and does not lower the rate."""
    began = time.perf_counter()
    for n in range(count):
        time.sleep(max(0.0, began + n / rate - time.perf_counter()))
        producer.send_each(job, [time.monotonic_ns()])


def _send(producer: Producer, job: str, kind: Kind, numbers: Sequence[int]) -> dict[str, float]:
    began = time.perf_counter()
    if kind is Kind.CLOCKED:
        cuts = quantiles((_seconds_of_one(producer, job, n) for n in numbers), n=100)
        return {"p50": cuts[49], "p99": cuts[98]}
    if kind is Kind.MANY:
        for start in range(0, len(numbers), BATCH):
            producer.send_many(job, numbers[start : start + BATCH])
    elif kind is Kind.TOGETHER:
        assert isinstance(producer, CoroutineProducer), f"{type(producer).__name__} has no way for coroutines"
        producer.send_together(job, numbers)
    else:
        producer.send_each(job, numbers)
    return {"seconds": time.perf_counter() - began}


def _seconds_of_one(producer: Producer, job: str, number: int) -> float:
    began = time.perf_counter()
    producer.send_each(job, [number])
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
