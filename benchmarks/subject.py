"""What is measured once a round, and the kinds of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .contestants import Contestant, grouped
from .measure import measure_drain, measure_latency, measure_sending
from .programs.produce import Kind
from .result import Measurement
from .settings import Settings

FEWEST = 10
"""Jobs, however small the scale."""


@dataclass(frozen=True)
class Subject:
    """Something with numbers of its own, under a title that no other has."""

    title: str
    measure: Callable[[float, Settings], Measurement]
    """Measure it once, at a scale: 1 is what the table's titles say."""
    only_once: bool = False
    """However many rounds there are."""


def drain(title: str, contestant: Contestant, job: str, jobs: int) -> Subject:
    """How fast ``contestant`` runs jobs that wait for it; so many that it lasts some seconds."""
    return Subject(title, lambda scale, settings: measure_drain(contestant, job, scaled(jobs, scale), settings))


def drain_of_groups(title: str, contestant: Contestant, groups: int, each: int) -> Subject:
    """The same with ``each`` jobs in each of ``groups`` groups; at a smaller scale in fewer, if there are many."""

    def measure(scale: float, settings: Settings) -> Measurement:
        fewer = min(groups, max(1, round(groups * scale)))
        return measure_drain(grouped(contestant, fewer), "noop", scaled(groups * each, scale), settings)

    return Subject(title, measure)


def sending(title: str, contestant: Contestant, kind: Kind, jobs: int) -> Subject:
    """How fast one producer sends, while nobody runs what it sends."""
    return Subject(title, lambda scale, settings: measure_sending(contestant, kind, scaled(jobs, scale), settings))


def latency(title: str, contestant: Contestant, jobs: int) -> Subject:
    """From `send` to the job's first line, at 100 jobs a second to workers that wait."""
    return Subject(
        title, lambda scale, settings: measure_latency(contestant, "stamp", scaled(jobs, scale), 100, settings)
    )


def scaled(jobs: int, scale: float) -> int:
    """``jobs`` at that scale."""
    return max(FEWEST, round(jobs * scale))
