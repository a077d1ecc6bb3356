"""Jobs that wait for a tenth of a second, as most jobs wait for something: what native coroutines are for."""

from benchmarks.contestants import DRAMATIQ, OURS, OURS_PERSISTENT, PROCRASTINATE, TASKIQ
from benchmarks.result import Metric, Target

from . import rows
from .scenario import Row, Scenario

DRAIN = Metric.DRAIN

SLEEP = Scenario(
    name="sleep",
    title="`sleep(0.1)` jobs",
    metrics=(DRAIN, Metric.PROCESSOR),
    rows=(
        Row(rows.DRAMATIQ_ASYNC, DRAMATIQ, "nap", 800),
        Row(rows.OURS_ASYNC, OURS, "nap", 20_000),
        Row(rows.OURS_ASYNC_PERSISTENT, OURS_PERSISTENT, "nap", 20_000),
        Row(rows.TASKIQ_ASYNC, TASKIQ, "nap", 15_000),
        Row(rows.PROCRASTINATE_ASYNC, PROCRASTINATE, "nap", 3_000),
    ),
    compared=DRAIN,
    bases=(rows.DRAMATIQ_ASYNC,),
    targets=(
        Target(
            "`sleep(0.1)` drain ≥ 12 × Dramatiq async",
            rows.OURS_ASYNC,
            DRAIN,
            12,
            (rows.DRAMATIQ_ASYNC, DRAIN),
        ),
    ),
)
