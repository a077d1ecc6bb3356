"""Jobs in groups, which run in order, beside jobs that do not: the cost of the order, of its lanes, and of its rows."""

from __future__ import annotations

from benchmarks.contestants import OURS, OURS_PERSISTENT, grouped
from benchmarks.result import Metric, Target

from . import rows
from .scenario import Row, Scenario

DRAIN = Metric.DRAIN
JOBS = 10_000

GROUPS = Scenario(
    name="groups",
    title="No-op jobs in groups",
    metrics=(Metric.ENQUEUE, Metric.ENQUEUE_MANY, DRAIN, Metric.PROCESSOR),
    rows=(
        Row(rows.OURS_ASYNC, OURS, "noop", JOBS),
        Row(rows.GROUPS_1000, grouped(OURS, 1_000), "noop", JOBS),
        Row(rows.GROUPS_10000, grouped(OURS, 10_000), "noop", 2 * JOBS),
        Row(rows.GROUP_ALONE, grouped(OURS, 1), "noop", 2_000),
        Row(rows.OURS_ASYNC_PERSISTENT, OURS_PERSISTENT, "noop", JOBS),
        Row(rows.GROUPS_1000_PERSISTENT, grouped(OURS_PERSISTENT, 1_000), "noop", JOBS),
        Row(rows.GROUPS_10000_PERSISTENT, grouped(OURS_PERSISTENT, 10_000), "noop", 2 * JOBS),
        Row(rows.GROUP_ALONE_PERSISTENT, grouped(OURS_PERSISTENT, 1), "noop", 2_000),
    ),
    compared=DRAIN,
    bases=(rows.OURS_ASYNC, rows.OURS_ASYNC_PERSISTENT),
    targets=(
        Target(
            "1,000 groups × 10 ≥ 0.7 × ungrouped",
            rows.GROUPS_1000,
            DRAIN,
            0.7,
            (rows.OURS_ASYNC, DRAIN),
        ),
        Target(
            "the same with PostgreSQL",
            rows.GROUPS_1000_PERSISTENT,
            DRAIN,
            0.7,
            (rows.OURS_ASYNC_PERSISTENT, DRAIN),
        ),
    ),
)
