"""What a scenario is."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.contestants import Contestant
from benchmarks.measure import measure_drain, measure_latency
from benchmarks.result import Measurement, Metric, Target
from benchmarks.settings import Settings


@dataclass(frozen=True)
class Row:
    """One contestant with one kind of job."""

    title: str
    contestant: Contestant
    job: str
    jobs: int
    """So many that it lasts some seconds at this contestant's speed: rates are compared, not totals."""


@dataclass(frozen=True)
class Scenario:
    """Rows that are measured one after the other, round by round."""

    name: str
    title: str
    metrics: tuple[Metric, ...]
    rows: tuple[Row, ...]
    compared: Metric
    """The metric whose ratios the table shows."""
    bases: tuple[str, ...]
    """Titles of the rows to which the ratios are."""
    targets: tuple[Target, ...]
    rate: float | None = None
    """Jobs sent a second while the workers run; None: all before."""

    def measure(self, row: Row, scale: float, settings: Settings) -> Measurement:
        """Measure a row once, with ``scale`` times its jobs."""
        jobs = max(1, round(row.jobs * scale))
        if self.rate is None:
            return measure_drain(row.contestant, row.job, jobs, settings)
        return measure_latency(row.contestant, row.job, jobs, self.rate, settings)
