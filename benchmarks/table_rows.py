"""The table of `make bench`, row by row, with the targets of docs/benchmarks.md."""

from __future__ import annotations

from .broker_limit import measure_consuming, measure_publishing
from .commits import measure_commits
from .contestants import (
    DRAMATIQ,
    DRAMATIQ_PREFETCHING,
    OURS,
    OURS_PERSISTENT,
    PROCRASTINATE,
    TASKIQ,
    grouped,
)
from .memory import measure_growth
from .programs.produce import Kind
from .result import Metric
from .row import Row, at_least, at_most, times
from .subject import Subject, drain, drain_of_groups, latency, scaled, sending

MESSAGES = 60_000
IN_GROUPS = grouped(OURS_PERSISTENT, 1_000)

LIMIT_CONSUME = Subject(
    "C client, consume and ack", lambda scale, settings: measure_consuming(scaled(MESSAGES, scale), settings)
)
LIMIT_PUBLISH = Subject(
    "C client, publish with confirms", lambda scale, settings: measure_publishing(scaled(MESSAGES, scale), settings)
)
COMMITS = Subject(
    "bare commits of one connection", lambda scale, settings: measure_commits(scaled(3_000, scale), settings)
)

DRAMATIQ_SYNC = drain("Dramatiq, sync", DRAMATIQ, "noop_sync", 15_000)
DRAMATIQ_SYNC_PREFETCHING = drain("Dramatiq, sync, prefetch 300", DRAMATIQ_PREFETCHING, "noop_sync", 15_000)
DRAMATIQ_ASYNC = drain("Dramatiq, async", DRAMATIQ, "noop", 12_000)
TASKIQ_ASYNC = drain("taskiq-aio-pika", TASKIQ, "noop", 15_000)
PROCRASTINATE_ASYNC = drain("procrastinate", PROCRASTINATE, "noop", 3_000)
ASYNC = drain("async, no rows", OURS, "noop", 60_000)
ASYNC_POSTGRES = drain("async, PostgreSQL", OURS_PERSISTENT, "noop", 40_000)
SYNC = drain("sync, no rows", OURS, "noop_sync", 30_000)
SYNC_POSTGRES = drain("sync, PostgreSQL", OURS_PERSISTENT, "noop_sync", 20_000)

GROUPS_1000 = drain_of_groups("1,000 groups × 10, PostgreSQL", OURS_PERSISTENT, 1_000, 10)
GROUPS_10000 = drain_of_groups("10,000 groups × 2, PostgreSQL", OURS_PERSISTENT, 10_000, 2)
GROUPS_ONE = drain_of_groups("one group × 2,000, PostgreSQL", OURS_PERSISTENT, 1, 2_000)

DRAMATIQ_SEND = sending("Dramatiq's `send`", DRAMATIQ, Kind.EACH, 2_000)
PROCRASTINATE_BATCH = sending("procrastinate's batch defer", PROCRASTINATE, Kind.MANY, 20_000)
SEND_EACH = sending("`send` one by one, PostgreSQL", OURS_PERSISTENT, Kind.EACH, 2_000)
SEND_ASYNC = sending("`send_async` from 100 coroutines, PostgreSQL", OURS_PERSISTENT, Kind.TOGETHER, 5_000)
SEND_MANY = sending("`send_many`, no rows", OURS, Kind.MANY, 40_000)
SEND_MANY_POSTGRES = sending("`send_many`, PostgreSQL", OURS_PERSISTENT, Kind.MANY, 20_000)
SEND_MANY_GROUPS = sending("`send_many` in 1,000 groups, PostgreSQL", IN_GROUPS, Kind.MANY, 20_000)

DRAMATIQ_LATENCY = latency("Dramatiq, async, send → start", DRAMATIQ, 1_000)
LATENCY = latency("send → start, no rows", OURS, 1_000)
LATENCY_POSTGRES = latency("send → start, PostgreSQL", OURS_PERSISTENT, 1_000)
LATENCY_GROUPS = latency("send → start in 1,000 groups, PostgreSQL", IN_GROUPS, 1_000)

DRAMATIQ_NAPS = drain("Dramatiq, async, `sleep(0.1)`", DRAMATIQ, "nap", 800)
NAPS = drain("`sleep(0.1)`, no rows", OURS, "nap", 20_000)

MEMORY = Subject("memory over 1M jobs and 50 cuts, no rows", measure_growth, only_once=True)


def _latency(name: str, ours: Subject, p50: float) -> tuple[Row, Row]:
    return (
        Row(name, f"{ours.title}: p50", ours, DRAMATIQ_LATENCY, at_most(p50), Metric.P50),
        Row(name, f"{ours.title}: p99", ours, DRAMATIQ_LATENCY, at_most(15), Metric.P99),
    )


ROWS = (
    Row("async-plain", ASYNC.title, ASYNC, DRAMATIQ_SYNC, times(4)),
    Row("async-plain", ASYNC.title, ASYNC, DRAMATIQ_SYNC_PREFETCHING),
    Row("async-plain", ASYNC.title, ASYNC, DRAMATIQ_ASYNC),
    Row("async-plain", ASYNC.title, ASYNC, TASKIQ_ASYNC),
    Row("async-plain", ASYNC.title, ASYNC, LIMIT_CONSUME, times(0.55)),
    Row("async-postgres", ASYNC_POSTGRES.title, ASYNC_POSTGRES, DRAMATIQ_SYNC, times(2)),
    Row("async-postgres", ASYNC_POSTGRES.title, ASYNC_POSTGRES, PROCRASTINATE_ASYNC),
    Row("sync-plain", SYNC.title, SYNC, DRAMATIQ_SYNC, times(1.6)),
    Row("sync-postgres", SYNC_POSTGRES.title, SYNC_POSTGRES, DRAMATIQ_SYNC, times(1)),
    Row("groups-1000", GROUPS_1000.title, GROUPS_1000, ASYNC_POSTGRES, times(1.5)),
    Row("groups-10000", GROUPS_10000.title, GROUPS_10000, ASYNC_POSTGRES, times(1)),
    Row("groups-one", GROUPS_ONE.title, GROUPS_ONE, COMMITS, times(0.45)),
    Row("send-each", SEND_EACH.title, SEND_EACH, COMMITS, times(0.6)),
    Row("send-each", SEND_EACH.title, SEND_EACH, DRAMATIQ_SEND),
    Row("send-async", SEND_ASYNC.title, SEND_ASYNC, SEND_EACH, times(5)),
    Row("send-many-plain", SEND_MANY.title, SEND_MANY, LIMIT_PUBLISH),
    Row("send-many-postgres", SEND_MANY_POSTGRES.title, SEND_MANY_POSTGRES, PROCRASTINATE_BATCH, times(1)),
    Row("send-many-postgres", SEND_MANY_POSTGRES.title, SEND_MANY_POSTGRES, None, at_least(15_000)),
    Row("send-many-groups", SEND_MANY_GROUPS.title, SEND_MANY_GROUPS, PROCRASTINATE_BATCH, times(1)),
    Row("send-many-groups", SEND_MANY_GROUPS.title, SEND_MANY_GROUPS, None, at_least(10_000)),
    *_latency("latency-plain", LATENCY, p50=1),
    *_latency("latency-postgres", LATENCY_POSTGRES, p50=3),
    *_latency("latency-groups", LATENCY_GROUPS, p50=3),
    Row("sleep", NAPS.title, NAPS, DRAMATIQ_NAPS, times(35)),
    Row("memory", MEMORY.title, MEMORY, None, at_most(5), Metric.GROWTH),
)
