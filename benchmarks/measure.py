"""Measures one contestant once, each alike: how fast it runs jobs, how fast it sends them, how soon they start."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import quantiles

from .contestants import Contestant
from .machine import wait_for_quiet
from .programs.probe import Reading
from .programs.produce import Kind
from .result import Measurement, Metric
from .settings import PROCESSES, Settings
from .stage import START_DEADLINE, MeasurementError, Stage, stage

WARM_UP = 100
"""Stamped jobs whose latencies do not count: first connections, first bytecode, first page faults."""

SOON = 0.2
"""Seconds within which a producer exits if it has postponed nothing."""


def measure_drain(contestant: Contestant, job: str, jobs: int, settings: Settings) -> Measurement:
    """Send ``jobs`` jobs, then start the workers; a drain lasts from the first job's start to the last one's end."""
    with stage(contestant, settings) as the_stage:
        the_stage.produce(job, Kind.MANY, jobs)
        wait_for_quiet(settings.patience)
        with the_stage.workers():
            readings = the_stage.wait_for(jobs, settings.deadline)
    return _of_drain(readings, jobs, the_stage)


def measure_sending(contestant: Contestant, kind: Kind, jobs: int, settings: Settings) -> Measurement:
    """Send ``jobs`` jobs that no worker runs; the first one connects, and does not count."""
    with stage(contestant, settings) as the_stage:
        wait_for_quiet(settings.patience)
        printed = the_stage.produce("noop", kind, jobs)
    closing = printed["closing"]
    note = f"{closing:.1f} s more to close" if closing > SOON else ""
    return Measurement({Metric.RATE: (jobs - 1) / printed["seconds"]}, note)


def measure_latency(contestant: Contestant, job: str, jobs: int, rate: float, settings: Settings) -> Measurement:
    """Send ``jobs`` jobs at ``rate`` a second to waiting workers; latency: `send` to the job's first line."""
    with stage(contestant, settings) as the_stage:
        # This creates tables and queues before the workers need them; once these jobs have run, the workers are up.
        the_stage.produce(job, Kind.STAMPED, PROCESSES, rate)
        with the_stage.workers():
            if not _count(the_stage.wait_for(PROCESSES, START_DEADLINE)):
                raise MeasurementError(f"the workers of {contestant.name} run nothing: {the_stage.worker_log()}")
            wait_for_quiet(settings.patience)
            the_stage.produce(job, Kind.STAMPED, WARM_UP + jobs, rate)
            readings = the_stage.wait_for(PROCESSES + WARM_UP + jobs, settings.deadline)
    stamped = sorted(pair for reading in readings for pair in reading.latencies)[PROCESSES + WARM_UP :]
    if len(stamped) < jobs:
        raise MeasurementError(f"{contestant.name} ran {len(stamped)} of {jobs}: {the_stage.worker_log()}")
    cuts = quantiles((latency / 1e6 for _, latency in stamped), n=100)
    return Measurement({Metric.P50: cuts[49], Metric.P99: cuts[98]})


def _of_drain(readings: Sequence[Reading], jobs: int, the_stage: Stage) -> Measurement:
    done = _count(readings)
    if done == 0:
        raise MeasurementError(f"the workers of {the_stage.contestant.name} ran nothing: {the_stage.worker_log()}")
    first = min(reading.first for reading in readings)
    last = max(reading.last for reading in readings)
    notes = []
    if done != jobs:
        notes.append(f"{done:,} of {jobs:,} jobs")
    if len(readings) != PROCESSES:
        notes.append(f"{len(readings)} of {PROCESSES} processes ran jobs")
    processor = sum(reading.processor for reading in readings) / 1e3 / done
    return Measurement({Metric.RATE: done / ((last - first) / 1e9), Metric.PROCESSOR: processor}, "; ".join(notes))


def _count(readings: Sequence[Reading]) -> int:
    return sum(reading.count for reading in readings)
