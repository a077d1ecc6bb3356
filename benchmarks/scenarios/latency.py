"""From `send` to the job's first line, at 100 jobs a second on an otherwise idle queue."""

from benchmarks.contestants import DRAMATIQ, OURS, OURS_PERSISTENT, PROCRASTINATE, TASKIQ
from benchmarks.result import Metric, Target

from . import rows
from .scenario import Row, Scenario

JOBS = 1_000

LATENCY = Scenario(
    name="latency",
    title="Latency, `send` → start, at 100 jobs/s",
    metrics=(Metric.P50, Metric.P99),
    rows=(
        Row(rows.DRAMATIQ_SYNC, DRAMATIQ, "stamp_sync", JOBS),
        Row(rows.OURS_SYNC, OURS, "stamp_sync", JOBS),
        Row(rows.DRAMATIQ_ASYNC, DRAMATIQ, "stamp", JOBS),
        Row(rows.OURS_ASYNC, OURS, "stamp", JOBS),
        Row(rows.OURS_ASYNC_PERSISTENT, OURS_PERSISTENT, "stamp", JOBS),
        Row(rows.TASKIQ_ASYNC, TASKIQ, "stamp", JOBS),
        Row(rows.PROCRASTINATE_ASYNC, PROCRASTINATE, "stamp", JOBS),
    ),
    compared=Metric.P50,
    bases=(rows.DRAMATIQ_SYNC, rows.DRAMATIQ_ASYNC),
    targets=(
        Target("latency p50 ≤ 5 ms", rows.OURS_ASYNC, Metric.P50, 5, at_most=True),
        Target("latency p99 ≤ 25 ms", rows.OURS_ASYNC, Metric.P99, 25, at_most=True),
        Target("latency with PostgreSQL p50 ≤ 5 ms", rows.OURS_ASYNC_PERSISTENT, Metric.P50, 5, at_most=True),
        Target("latency with PostgreSQL p99 ≤ 25 ms", rows.OURS_ASYNC_PERSISTENT, Metric.P99, 25, at_most=True),
    ),
    rate=100,
)
