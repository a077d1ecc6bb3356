"""A run: each subject once a round, one after the other."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable

from .result import Measurement, Results
from .row import Row
from .settings import Settings
from .stage import MeasurementError
from .subject import Subject


def measure_rounds(rows: Iterable[Row], rounds: int, scale: float, settings: Settings) -> Results:
    """Measure what ``rows`` speak of; those of one round are neighbours in time. Tells on stderr how it goes."""
    subjects = dict.fromkeys(subject for row in rows for subject in row.subjects)
    results: dict[str, list[Measurement]] = defaultdict(list)
    for number in range(1, rounds + 1):
        for subject in subjects:
            if number == 1 or not subject.only_once:
                _say(f"round {number} of {rounds} · {subject.title}: ", end="")
                measured = _measure(subject, scale, settings)
                shown = [metric.shown(value) for metric, value in measured.numbers.items()]
                _say("; ".join([*shown, *([measured.note] if measured.note else [])]))
                results[subject.title].append(measured)
    return results


def _measure(subject: Subject, scale: float, settings: Settings) -> Measurement:
    """A subject that fails costs the run its own numbers, not those of the others."""
    try:
        return subject.measure(scale, settings)
    except MeasurementError as error:
        return Measurement({}, f"failed: {error}")


def _say(text: str, end: str = "\n") -> None:
    print(text, end=end, file=sys.stderr, flush=True)
