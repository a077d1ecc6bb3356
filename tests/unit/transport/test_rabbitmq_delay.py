"""The way of a delayed message through the timers: together they take as long as its delay."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jq_actors.config.loading import BrokerConfig
from jq_actors.transport.rabbitmq.publishing.delay import LEVELS, LONGEST, UNIT, Delays
from jq_actors.transport.rabbitmq.topology import Topology

delays = Delays(Topology(BrokerConfig(namespace="ns")))


def timers_of(exchange: str, routing_key: str) -> list[int]:
    """The levels whose queues the message passes, found as the topic exchanges find them."""
    level = int(exchange.removeprefix("ns.delay@"))
    words = routing_key.split(".")
    passed = []
    for at in range(level, -1, -1):
        bit = words[LEVELS - 1 - at]
        assert bit in "01"
        if bit == "1":
            passed.append(at)
    return passed


@given(st.timedeltas(min_value=timedelta(microseconds=1), max_value=LONGEST))
def test_the_timers_on_the_way_add_up_to_the_delay_rounded_up(delay: timedelta) -> None:
    passed = timers_of(*delays.route("mail", delay))

    total = sum((UNIT * 2**level for level in passed), timedelta())
    assert delay <= total < delay + UNIT
    assert passed == sorted(passed, reverse=True)


@given(st.timedeltas(min_value=timedelta(microseconds=1), max_value=LONGEST))
def test_it_starts_at_a_timer_that_it_needs(delay: timedelta) -> None:
    exchange, routing_key = delays.route("mail", delay)

    assert timers_of(exchange, routing_key)[0] == int(exchange.removeprefix("ns.delay@"))


def test_the_longest_is_more_than_a_year() -> None:
    assert timedelta(days=600) < LONGEST


@pytest.mark.parametrize("queue", ["mail", "a.b.c", "x" * 128, "1", "0.1"])
def test_the_key_ends_in_one_word_for_the_queue_and_is_not_too_long(queue: str) -> None:
    _, routing_key = delays.route(queue, timedelta(seconds=1))

    words = routing_key.split(".")
    assert len(words) == LEVELS + 1
    assert re.sub("/", ".", words[-1]) == queue
    assert len(routing_key) <= 255
