"""Jobs that do nothing: the cost of the queue itself, sending and running."""

from benchmarks.contestants import (
    DRAMATIQ,
    DRAMATIQ_PREFETCHING,
    OURS,
    OURS_PERSISTENT,
    PROCRASTINATE,
    TASKIQ,
)
from benchmarks.result import Metric, Target

from . import rows
from .scenario import Row, Scenario

DRAIN = Metric.DRAIN


def _drain(text: str, row: str, limit: float, base: str) -> Target:
    return Target(text, row, DRAIN, limit, (base, DRAIN))


NOOP = Scenario(
    name="noop",
    title="No-op jobs",
    metrics=(Metric.ENQUEUE, Metric.ENQUEUE_MANY, DRAIN, Metric.PROCESSOR),
    rows=(
        Row(rows.DRAMATIQ_SYNC, DRAMATIQ, "noop_sync", 15_000),
        Row(rows.DRAMATIQ_SYNC_PREFETCHING, DRAMATIQ_PREFETCHING, "noop_sync", 15_000),
        Row(rows.OURS_SYNC, OURS, "noop_sync", 30_000),
        Row(rows.OURS_SYNC_PERSISTENT, OURS_PERSISTENT, "noop_sync", 20_000),
        Row(rows.DRAMATIQ_ASYNC, DRAMATIQ, "noop", 12_000),
        Row(rows.DRAMATIQ_ASYNC_PREFETCHING, DRAMATIQ_PREFETCHING, "noop", 12_000),
        Row(rows.OURS_ASYNC, OURS, "noop", 60_000),
        Row(rows.OURS_ASYNC_PERSISTENT, OURS_PERSISTENT, "noop", 40_000),
        Row(rows.TASKIQ_ASYNC, TASKIQ, "noop", 15_000),
        Row(rows.PROCRASTINATE_ASYNC, PROCRASTINATE, "noop", 3_000),
    ),
    compared=DRAIN,
    bases=(rows.DRAMATIQ_SYNC, rows.DRAMATIQ_ASYNC, rows.DRAMATIQ_SYNC_PREFETCHING),
    targets=(
        _drain("async no-op drain ≥ 2 × Dramatiq sync", rows.OURS_ASYNC, 2, rows.DRAMATIQ_SYNC),
        _drain("async no-op drain ≥ 2.5 × Dramatiq async", rows.OURS_ASYNC, 2.5, rows.DRAMATIQ_ASYNC),
        _drain("with PostgreSQL ≥ Dramatiq sync without any", rows.OURS_ASYNC_PERSISTENT, 1, rows.DRAMATIQ_SYNC),
        _drain("with PostgreSQL ≥ 0.6 × ours without", rows.OURS_ASYNC_PERSISTENT, 0.6, rows.OURS_ASYNC),
        _drain("with PostgreSQL ≥ 15 × procrastinate", rows.OURS_ASYNC_PERSISTENT, 15, rows.PROCRASTINATE_ASYNC),
        Target(
            text="`send_many` ≥ 3 × Dramatiq's loop",
            row=rows.OURS_ASYNC,
            metric=Metric.ENQUEUE_MANY,
            limit=3,
            against=(rows.DRAMATIQ_ASYNC, Metric.ENQUEUE_MANY),
        ),
    ),
)
