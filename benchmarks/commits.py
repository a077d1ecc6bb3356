"""Bare commits: the limit for every subject that writes its jobs one by one."""

from __future__ import annotations

import subprocess

from .contestants import PROGRAMS
from .machine import wait_for_quiet
from .result import Measurement, Metric
from .servers import drop_database, make_database
from .settings import ROOT, Settings
from .stage import MeasurementError

DATABASE = "jq_bench_commits"


def measure_commits(commits: int, settings: Settings) -> Measurement:
    """Commit ``commits`` times on one connection, one after the other."""
    url = make_database(settings.database_url, DATABASE)
    try:
        wait_for_quiet(settings.patience)
        command = [str(settings.our_python), "-m", f"{PROGRAMS}.bare_commits", url, str(commits)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    finally:
        drop_database(settings.database_url, DATABASE)
    if done.returncode != 0:
        raise MeasurementError(f"the bare commits failed: {done.stderr[-500:]}")
    return Measurement({Metric.RATE: commits / float(done.stdout)})
