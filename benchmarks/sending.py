"""What one `send` takes, without a group, to a new group, and to one that is idle; and how soon its job starts."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from tests.support.rabbitmq import PrivateRabbitMQ

from .contestants import OURS, OURS_PERSISTENT, Contestant, grouped
from .machine import wait_for_quiet
from .measure import START_DEADLINE, MeasurementError, Stage, measure_latency, stage
from .result import Metric
from .settings import Settings

COUNTLESS = 2**62
"""So many groups that each stamped job, which is numbered by its time, has one of its own."""
RATE = 50.0
"""Stamped jobs a second."""
POLL = 0.5


@dataclass(frozen=True)
class Sendings:
    """Milliseconds of one `send` after the other, while workers wait for the jobs."""

    title: str
    p50: float
    p99: float


def measure_sendings(sends: int, settings: Settings) -> Iterator[Sendings]:
    """Send ``sends`` jobs of each kind, on a broker that is made for it."""
    node = PrivateRabbitMQ()
    try:
        node.start()
        private = replace(settings, amqp_url=node.url)
        for contestant, suffix in ((OURS, ""), (OURS_PERSISTENT, ", + PostgreSQL")):
            yield _ungrouped(contestant, suffix, sends, private)
            yield from _grouped(contestant, suffix, sends, node, private)
            yield _until_start(contestant, suffix, sends, private)
    finally:
        node.close()


def _ungrouped(contestant: Contestant, suffix: str, sends: int, settings: Settings) -> Sendings:
    with _serving(contestant, settings) as the_stage:
        return _send(the_stage, f"`send`, no group{suffix}", sends)


def _grouped(
    contestant: Contestant, suffix: str, sends: int, node: PrivateRabbitMQ, settings: Settings
) -> Iterator[Sendings]:
    with _serving(_in_groups(contestant, 1 + sends), settings) as the_stage:
        yield _send(the_stage, f"`send`, a new group{suffix}", sends)
        _wait_until_idle(node, settings.deadline)
        yield _send(the_stage, f"`send`, an idle group{suffix}", sends)


def _until_start(contestant: Contestant, suffix: str, sends: int, settings: Settings) -> Sendings:
    countless = replace(_in_groups(contestant, 1), groups=COUNTLESS)
    measured = measure_latency(countless, "stamp", sends, RATE, settings).numbers
    return Sendings(f"`send` → start, a new group{suffix}", measured[Metric.P50], measured[Metric.P99])


def _in_groups(contestant: Contestant, groups: int) -> Contestant:
    # Its lanes need not be deleted: they go with the broker.
    return replace(grouped(contestant, groups), queues=contestant.queues)


@contextmanager
def _serving(contestant: Contestant, settings: Settings) -> Iterator[Stage]:
    with stage(contestant, settings) as the_stage:
        the_stage.produce("noop", each=1)  # makes queues and tables before the workers look for them
        with the_stage.workers():
            if not sum(reading.count for reading in the_stage.wait_for(1, START_DEADLINE)):
                raise MeasurementError(f"the workers of {contestant.name} run nothing: {the_stage.worker_log()}")
            wait_for_quiet(settings.patience)
            yield the_stage


def _send(the_stage: Stage, title: str, sends: int) -> Sendings:
    measured = the_stage.produce("noop", clocked=sends)
    return Sendings(title, 1000 * measured["p50"], 1000 * measured["p99"])


def _wait_until_idle(node: PrivateRabbitMQ, deadline: float) -> None:
    """Wait until no lane has a message or a consumer."""
    give_up = time.monotonic_ns() + int(deadline * 1e9)
    columns = ("name", "messages", "consumers")
    while True:
        queues = json.loads(node.ctl("list_queues", "--silent", "--formatter", "json", *columns))
        if not any(queue["messages"] + queue["consumers"] for queue in queues if ".g." in queue["name"]):
            return
        if time.monotonic_ns() > give_up:
            raise MeasurementError(f"the lanes are not idle within {deadline:g} s")
        time.sleep(POLL)
