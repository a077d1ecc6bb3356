"""A run: measures each subject once per round, one after the other."""

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
    """Measure the subjects of ``rows``, round by round. Reports progress on stderr."""
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
    """Measure one subject; if it fails, the run loses only the numbers of that subject."""
    try:
        return subject.measure(scale, settings)
    except MeasurementError as error:
        return Measurement({}, f"failed: {error}")


def _say(text: str, end: str = "\n") -> None:
    print(text, end=end, file=sys.stderr, flush=True)
