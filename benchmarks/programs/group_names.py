"""The names of the groups of the benchmark's jobs."""

from __future__ import annotations

import os


def group_name(number: int) -> str:
    """The name of one group."""
    return f"group-{number}"


def group_of(number: int) -> str:
    """The group of the job with this number; the $JQ_BENCH_GROUPS groups take turns."""
    return group_name(number % int(os.environ["JQ_BENCH_GROUPS"]))
