"""`python -m benchmarks.memory`: is a worker's memory flat over a million jobs and fifty cut connections?

Slices of jobs flow through the workers; in the middle of each slice all their connections are cut. Resident
memory is read at the end of each slice. What the first tenth adds is warm-up; then growth counts.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import Annotated

import psutil
import typer

from tests.support.proxy import TcpProxy

from .alone import alone
from .contestants import CONTESTANTS, OURS, Contestant
from .private_servers import servers
from .programs.probe import read_all
from .programs.produce import Kind
from .result import Measurement, Metric
from .settings import PROCESSES, Settings
from .stage import START_DEADLINE, Stage, stage

JOBS, CUTS = 1_000_000, 50
FEWEST_SLICES = 20
NEIGHBOURS = 3
"""Samples at each end whose median counts: a single sample may catch uncollected garbage."""


@dataclass(frozen=True)
class Sample:
    """The MB of each worker process by pid, after a number of jobs (of all processes)."""

    jobs: int
    megabytes: dict[int, float]


def main(
    jobs: Annotated[int, typer.Option(min=1000, help="Total number of jobs.")] = JOBS,
    cuts: Annotated[int, typer.Option(min=0, help="How often all connections are cut.")] = CUTS,
    contestant: Annotated[str, typer.Option(help=", ".join(one.name for one in CONTESTANTS))] = OURS.name,
    job: Annotated[str, typer.Option(help="A job of programs/jobs.py.")] = "noop",
) -> None:
    """Run no-op jobs while connections are cut, and print the growth of each worker process."""
    chosen = {one.name: one for one in CONTESTANTS}[contestant]
    with alone(), servers(patience=0) as settings:
        samples = take_samples(chosen, job, jobs, cuts, settings)
    for pid, megabytes in growth_by_process(samples).items():
        print(f"process {pid}: {megabytes:+.1f} MB")
    print(f"{chosen.name}: {samples[-1].jobs:,} jobs, {cuts} cuts")


def measure_growth(scale: float, settings: Settings) -> Measurement:
    """MB by which our fastest-growing worker process grows: JOBS jobs at scale 1, CUTS cuts at any scale."""
    samples = take_samples(OURS, "noop", round(JOBS * scale), CUTS, settings)
    growth = growth_by_process(samples)
    note = f"{samples[-1].jobs:,} jobs" + ("" if len(growth) == PROCESSES else f"; {len(growth)} processes to the end")
    return Measurement({Metric.GROWTH: max(growth.values())} if growth else {}, note)


def take_samples(contestant: Contestant, job: str, jobs: int, cuts: int, settings: Settings) -> list[Sample]:
    """Run ``jobs`` jobs in slices, with a cut in each of the first ``cuts`` ones; a sample at the end of each slice."""
    slices = max(cuts, FEWEST_SLICES)
    samples = []
    with stage(contestant, settings) as the_stage, TcpProxy.to(settings.amqp_url) as proxy:
        the_stage.produce(job, Kind.MANY, 2 * slices)  # makes queues and tables before the workers look for them
        with the_stage.workers(proxy.url(settings.amqp_url)):
            the_stage.wait_for(2 * slices, START_DEADLINE)
            for number in range(1, slices + 1):
                samples.append(_run_slice(the_stage, job, max(1, jobs // slices), proxy if number <= cuts else None))
                print(f"{samples[-1].jobs:>12,} jobs  {_shown(samples[-1])}", file=sys.stderr, flush=True)
    return samples


def growth_by_process(samples: Sequence[Sample]) -> dict[int, float]:
    """MB between the end of the warm-up and the end; a process that was replaced in between is left out."""
    warm = samples[len(samples) // 10 :]
    return {
        pid: median(sample.megabytes[pid] for sample in warm[-NEIGHBOURS:])
        - median(sample.megabytes[pid] for sample in warm[:NEIGHBOURS])
        for pid in warm[0].megabytes
        if all(pid in sample.megabytes for sample in warm)
    }


def _run_slice(the_stage: Stage, job: str, jobs: int, proxy: TcpProxy | None) -> Sample:
    before = _done(the_stage)
    with ThreadPoolExecutor(1) as pool:
        producing = pool.submit(the_stage.produce, job, Kind.MANY, jobs)
        the_stage.wait_for(before + jobs // 2, the_stage.settings.deadline)
        if proxy is not None:
            proxy.cut()
        producing.result()
    the_stage.wait_for(before + jobs, the_stage.settings.deadline)
    living = {pid: psutil.Process(pid) for pid in read_all(the_stage.folder) if psutil.pid_exists(pid)}
    return Sample(_done(the_stage), {pid: process.memory_info().rss / 1e6 for pid, process in living.items()})


def _done(the_stage: Stage) -> int:
    return sum(reading.count for reading in read_all(the_stage.folder).values())


def _shown(sample: Sample) -> str:
    return "  ".join(f"{pid}: {megabytes:.1f} MB" for pid, megabytes in sample.megabytes.items())


if __name__ == "__main__":
    typer.run(main)
