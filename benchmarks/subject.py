"""The kinds of subjects; a subject is measured once per round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .contestants import Contestant, grouped
from .measure import measure_drain, measure_latency, measure_sending
from .programs.produce import Kind
from .result import Measurement
from .settings import Settings

FEWEST = 10
"""The fewest jobs, however small the scale."""


@dataclass(frozen=True)
class Subject:
    """Something that is measured, with a unique title."""

    title: str
    measure: Callable[[float, Settings], Measurement]
    """Measure the subject once, at a scale; 1 is the number of jobs in the title."""
    only_once: bool = False
    """Whether to measure it in the first round only."""


def drain(title: str, contestant: Contestant, job: str, jobs: int) -> Subject:
    """How fast ``contestant`` runs queued jobs; there are enough of them for some seconds."""
    return Subject(title, lambda scale, settings: measure_drain(contestant, job, scaled(jobs, scale), settings))


def drain_of_groups(title: str, contestant: Contestant, groups: int, each: int) -> Subject:
    """The same with ``each`` jobs in each of ``groups`` groups; at a smaller scale in fewer, if there are many."""

    def measure(scale: float, settings: Settings) -> Measurement:
        fewer = min(groups, max(1, round(groups * scale)))
        return measure_drain(grouped(contestant, fewer), "noop", scaled(groups * each, scale), settings)

    return Subject(title, measure)


def sending(title: str, contestant: Contestant, kind: Kind, jobs: int) -> Subject:
    """How fast one producer sends while no worker runs the jobs."""
    return Subject(title, lambda scale, settings: measure_sending(contestant, kind, scaled(jobs, scale), settings))


def latency(title: str, contestant: Contestant, jobs: int) -> Subject:
    """The time from `send` to the job's first line, at 100 jobs per second, with idle workers."""
    return Subject(
        title, lambda scale, settings: measure_latency(contestant, "stamp", scaled(jobs, scale), 100, settings)
    )


def scaled(jobs: int, scale: float) -> int:
    """``jobs`` times ``scale``."""
    return max(FEWEST, round(jobs * scale))
