"""Many lanes on a private broker: their memory, and how fast they are served at first and after a restart."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from tests.support.rabbitmq import PrivateRabbitMQ

from .contestants import OURS, grouped
from .private_servers import private_rabbitmq
from .programs.lane_notes import Lanes, read_lanes
from .programs.produce import Kind
from .settings import PROCESSES, Settings
from .stage import MeasurementError, Stage, stage

DEADLINE = 300.0
"""Seconds to wait until all lanes are served."""
POLL = 0.1
SPARE = 1.2
"""Factor for the places that the lanes need: the processes do not share the lanes evenly."""


@dataclass(frozen=True)
class LivesOfLanes:
    """The measured values. Bytes are the broker's whole memory (``erlang:memory(total)``), garbage collected."""

    lanes: int
    bytes_waiting: float
    """Per lane: one small persistent message in it, and a token in the lobby."""
    bytes_served: float
    """Per lane: one consumer, and both messages delivered to a worker."""
    attach_from_start: float
    """Seconds from the start of the worker processes until all lanes were served."""
    attach: float
    """Seconds from the first lane served to the last one."""
    channels: int
    """Channels of all worker processes, those of consumers included."""
    broker_restart: float
    """Seconds of the broker alone, from the stop command until it answers again."""
    served_again: float
    """Seconds from then until all lanes are served again."""
    channels_again: int


def measure_lanes(lanes: int, settings: Settings) -> LivesOfLanes:
    """Fill ``lanes`` lanes with a job each, serve them all, restart the broker under them."""
    contestant = grouped(OURS, lanes, "ours_staying", concurrency=round(lanes * SPARE / PROCESSES) + 1)
    # No queue needs deleting: the whole broker is removed.
    contestant = replace(contestant, queues=())
    with private_rabbitmq() as node, stage(contestant, replace(settings, amqp_url=node.url)) as the_stage:
        return _live(the_stage, node, lanes)


def _live(the_stage: Stage, node: PrivateRabbitMQ, lanes: int) -> LivesOfLanes:
    empty = _memory(node)
    the_stage.produce("stay", Kind.MANY, lanes)
    waiting = _memory(node)
    began = time.monotonic_ns()
    with the_stage.workers():
        served = _wait_until(the_stage, lambda now: now.served >= lanes)
        memory, channels = _memory(node), _channels(node)
        stopped = time.monotonic_ns()
        node.restart()
        answers = time.monotonic_ns()
        again = _wait_until(the_stage, lambda now: now.closed >= lanes and now.served >= lanes)
        return LivesOfLanes(
            lanes=lanes,
            bytes_waiting=(waiting - empty) / lanes,
            bytes_served=(memory - empty) / lanes,
            attach_from_start=(served.last - began) / 1e9,
            attach=(served.last - served.first) / 1e9,
            channels=channels,
            broker_restart=(answers - stopped) / 1e9,
            served_again=(again.last - answers) / 1e9,
            channels_again=_channels(node),
        )


def _wait_until(the_stage: Stage, is_so: Callable[[Lanes], bool]) -> Lanes:
    give_up = time.monotonic_ns() + int(DEADLINE * 1e9)
    while not is_so(lanes := read_lanes(the_stage.folder)):
        if time.monotonic_ns() > give_up:
            raise MeasurementError(f"not all lanes were served in {DEADLINE:g} s: {lanes}; {the_stage.worker_log()}")
        time.sleep(POLL)
    return lanes


def _memory(node: PrivateRabbitMQ) -> int:
    return int(node.ctl("eval", "[garbage_collect(P) || P <- processes()], erlang:memory(total)."))


def _channels(node: PrivateRabbitMQ) -> int:
    listed = json.loads(node.ctl("list_channels", "--silent", "--formatter", "json", "consumer_count"))
    return sum(channel["consumer_count"] > 0 for channel in listed)
