"""What every test of groups is checked for: order, one at a time, none lost, one end for each job."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime

from .group_actors import FOR_GOOD, PLACES, GoodbyeError
from .journal import Run, overlaps
from .site import Site
from .steps import Steps

ENDS = ("returned", GoodbyeError.__name__)
"""How the last run of a job ends."""


def group_of(run: Run) -> int:
    """The group that a run belongs to."""
    return run.number // PLACES


def place_of(run: Run) -> int:
    """The place of a run's job in its group."""
    return run.number % PLACES


def by_group(runs: Iterable[Run]) -> dict[int, list[Run]]:
    """The runs of each group, by their start."""
    found: defaultdict[int, list[Run]] = defaultdict(list)
    for run in runs:
        found[group_of(run)].append(run)
    return found


def check_in_order(site: Site, steps: Steps, deaths: Mapping[int, datetime]) -> None:
    """Strictly: no job of a group began before the one before it had its last end, and each ended once."""
    runs = site.journal.runs()
    assert {run.job_id for run in runs} == steps.sent.keys()
    assert overlaps(runs, deaths, of=group_of) == []
    for group, of_group in by_group(runs).items():
        places = [place_of(run) for run in of_group]
        assert places == sorted(places), f"group {group}"
        assert set(places) == set(range(steps.each)), f"group {group}"
    check_ends(site, steps, deaths)


def check_ends(site: Site, steps: Steps, deaths: Mapping[int, datetime]) -> None:
    """Each job ended as it should, and again only when its process died before that was written."""
    for job_id, runs in site.journal.by_job().items():
        ends = [run for run in runs if run.how in ENDS]
        fate = steps.fate(job_id)
        assert runs[-1] is ends[-1], f"{steps.sent[job_id]} goes on after its end"
        assert ends[-1].how == (GoodbyeError.__name__ if fate.failures == FOR_GOOD else "returned")
        assert {run.pid for run in ends[:-1]} <= deaths.keys(), f"{steps.sent[job_id]} ended twice"
        assert {run.pid for run in runs if run.how is None} <= deaths.keys()


def check_rows(site: Site, steps: Steps) -> None:
    """The rows tell the same as the journal, and of nothing that did not happen."""
    jobs, attempts = site.rows.jobs(), site.rows.attempts()
    assert jobs.keys() == steps.sent.keys()
    for job_id, job in jobs.items():
        fate, outcomes = steps.fate(job_id), [attempt.outcome for attempt in attempts[job_id]]
        end = "failed" if fate.failures == FOR_GOOD else "succeeded"
        assert (job.state, outcomes[-1], outcomes.count(end)) == (end, end, 1)
        assert outcomes.count("lost") == job.crashes
        if not job.crashes:
            assert outcomes == ["retrying"] * max(fate.failures, 0) + [end]


def check_first_ends_in_order(site: Site, steps: Steps) -> None:
    """What is promised without rows: none is lost, and the jobs of a group came to their first ends in order.

    Those whose acks died with their worker, or with its connection, run again, and so after others.
    """
    runs = [run for run in site.journal.runs() if run.how in ENDS and run.ended is not None]
    for group, of_group in by_group(sorted(runs, key=lambda run: (run.ended, run.number))).items():
        firsts = list(dict.fromkeys(place_of(run) for run in of_group))
        assert firsts == list(range(steps.each)), f"group {group}"


def most_at_once(runs: Iterable[Run], deaths: Mapping[int, datetime]) -> int:
    """How many of these runs there were at the same moment."""
    changes: list[tuple[datetime, int]] = []
    for run in runs:
        changes += [(run.started, 1), (run.ended or deaths[run.pid], -1)]
    most = now = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most
