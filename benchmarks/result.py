"""What was measured, and what it means: medians over rounds, ratios within a round, targets met or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median


class Metric(StrEnum):
    """What a number is; the value is its column's title."""

    ENQUEUE = "enqueue/s"
    ENQUEUE_MANY = "batch/s"
    DRAIN = "drain/s"
    PROCESSOR = "CPU µs/job"
    """Processor time of the worker processes (not of the servers) a job: what a busy machine disturbs least."""
    P50 = "p50 ms"
    P99 = "p99 ms"


@dataclass(frozen=True)
class Measurement:
    """One contestant in one round."""

    numbers: Mapping[Metric, float]
    note: str = ""
    """What went wrong, or limits what the numbers say."""


Rounds = Sequence[Measurement]


@dataclass(frozen=True)
class Target:
    """One line of DESIGN §14: a row's number against a limit, or against another row's in the same round."""

    text: str
    row: str
    metric: Metric
    limit: float
    against: tuple[str, Metric] | None = None
    at_most: bool = False

    def measured(self, rows: Mapping[str, Rounds]) -> float | None:
        """The median of the number, or of the ratio within each round; None if something was not measured."""
        if self.against is None:
            return middle(rows.get(self.row, ()), self.metric)
        other_row, other_metric = self.against
        return ratio(rows.get(self.row, ()), self.metric, rows.get(other_row, ()), other_metric)

    def is_met(self, measured: float) -> bool:
        """Whether ``measured`` is good enough."""
        return measured <= self.limit if self.at_most else measured >= self.limit


def middle(rounds: Rounds, metric: Metric) -> float | None:
    """The median over the rounds that have the number."""
    values = [measurement.numbers[metric] for measurement in rounds if metric in measurement.numbers]
    return median(values) if values else None


def spread(rounds: Rounds, metric: Metric) -> tuple[float, float] | None:
    """Smallest and largest over the rounds that have the number."""
    values = [measurement.numbers[metric] for measurement in rounds if metric in measurement.numbers]
    return (min(values), max(values)) if values else None


def ratio(ours: Rounds, metric: Metric, theirs: Rounds, their_metric: Metric) -> float | None:
    """The median of the ratios within a round: neighbours in time saw the same machine."""
    ratios = [
        a.numbers[metric] / b.numbers[their_metric]
        for a, b in zip(ours, theirs, strict=False)
        if metric in a.numbers and b.numbers.get(their_metric)
    ]
    return median(ratios) if ratios else None
