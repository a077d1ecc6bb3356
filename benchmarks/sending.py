"""How long one `send` takes to a new and to an idle group, without rows, and how soon its job starts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from tests.support.rabbitmq import PrivateRabbitMQ

from .contestants import OURS, Contestant, grouped
from .machine import wait_for_quiet
from .measure import measure_latency
from .private_servers import private_rabbitmq
from .programs.produce import Kind
from .result import Metric
from .settings import Settings
from .stage import START_DEADLINE, MeasurementError, Stage, stage

COUNTLESS = 2**62
"""Enough groups for each stamped job, which is numbered by its time, to have its own."""
RATE = 50.0
"""Stamped jobs per second."""
POLL = 0.5


@dataclass(frozen=True)
class Sendings:
    """Milliseconds of successive `send` calls while workers wait for the jobs."""

    title: str
    p50: float
    p99: float


def measure_sendings(sends: int, settings: Settings) -> Iterator[Sendings]:
    """Send ``sends`` jobs of each kind, on a private broker."""
    with private_rabbitmq() as node:
        private = replace(settings, amqp_url=node.url)
        with _serving(OURS, private) as the_stage:
            yield _send(the_stage, "`send`, no group", sends)
        with _serving(_in_groups(sends), private) as the_stage:
            yield _send(the_stage, "`send`, a new group", sends)
            _wait_until_idle(node, settings.deadline)
            yield _send(the_stage, "`send`, an idle group", sends)
        countless = replace(_in_groups(1), groups=COUNTLESS)
        numbers = measure_latency(countless, "stamp", sends, RATE, private).numbers
        yield Sendings("`send` → start, a new group", numbers[Metric.P50], numbers[Metric.P99])


def _in_groups(groups: int) -> Contestant:
    # The lanes need no deleting: they disappear with the broker.
    return replace(grouped(OURS, groups), queues=OURS.queues)


@contextmanager
def _serving(contestant: Contestant, settings: Settings) -> Iterator[Stage]:
    with stage(contestant, settings) as the_stage:
        the_stage.produce("noop", Kind.EACH, 1)  # makes queues and tables before the workers look for them
        with the_stage.workers():
            if not sum(reading.count for reading in the_stage.wait_for(1, START_DEADLINE)):
                raise MeasurementError(f"the workers of {contestant.name} run nothing: {the_stage.worker_log()}")
            wait_for_quiet(settings.patience)
            yield the_stage


def _send(the_stage: Stage, title: str, sends: int) -> Sendings:
    measured = the_stage.produce("noop", Kind.CLOCKED, sends)
    return Sendings(title, 1000 * measured["p50"], 1000 * measured["p99"])


def _wait_until_idle(node: PrivateRabbitMQ, deadline: float) -> None:
    """Wait until no lane has a message. Workers keep serving an empty lane for a while, in case a message comes."""
    give_up = time.monotonic_ns() + int(deadline * 1e9)
    while any(messages for queue, messages in node.queue_depths().items() if ".g." in queue):
        if time.monotonic_ns() > give_up:
            raise MeasurementError(f"the lanes are not idle within {deadline:g} s")
        time.sleep(POLL)
