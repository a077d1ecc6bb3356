"""Measurements, and their summary over several rounds: medians, spreads, ratios within a round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median


class Metric(StrEnum):
    """The kind of a number; the value is the title of its column."""

    RATE = "a second"
    """Jobs run, jobs sent, commits or messages."""
    PROCESSOR = "CPU µs a job"
    """Processor time of the worker processes (not of the servers): a busy machine disturbs this number least."""
    P50 = "p50 ms"
    P99 = "p99 ms"
    GROWTH = "MB grown"

    @property
    def unit(self) -> str:
        """The text after a value."""
        return _FORMS[self][1]

    def shown(self, value: float) -> str:
        """``value`` with its unit."""
        return self.bare(value) + self.unit

    def bare(self, value: float) -> str:
        """``value`` as the table shows it, without its unit."""
        return f"{value:,.{_FORMS[self][0]}f}"


@dataclass(frozen=True)
class Measurement:
    """One subject in one round."""

    numbers: Mapping[Metric, float]
    note: str = ""
    """What went wrong, or what limits the meaning of the numbers."""


Rounds = Sequence[Measurement]
Results = Mapping[str, Rounds]
"""Rounds by the subject's title."""


def middle(rounds: Rounds, metric: Metric) -> float | None:
    """The median over the rounds that have the number."""
    values = [measurement.numbers[metric] for measurement in rounds if metric in measurement.numbers]
    return median(values) if values else None


def spread(rounds: Rounds, metric: Metric) -> tuple[float, float] | None:
    """Smallest and largest over the rounds that have the number."""
    values = [measurement.numbers[metric] for measurement in rounds if metric in measurement.numbers]
    return (min(values), max(values)) if values else None


def ratio(ours: Rounds, theirs: Rounds, metric: Metric) -> float | None:
    """The median of the ratios within a round: measurements close in time see the same machine load."""
    ratios = [
        a.numbers[metric] / b.numbers[metric]
        for a, b in zip(ours, theirs, strict=False)
        if metric in a.numbers and b.numbers.get(metric)
    ]
    return median(ratios) if ratios else None


_FORMS = {
    Metric.RATE: (0, "/s"),
    Metric.PROCESSOR: (0, " µs"),
    Metric.P50: (2, " ms"),
    Metric.P99: (1, " ms"),
    Metric.GROWTH: (1, " MB"),
}
