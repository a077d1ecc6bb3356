"""The machine's own clock."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from jq_actors.clock import SystemClock


def test_the_wall_clock_is_aware_and_in_utc() -> None:
    before = datetime.now(UTC)
    seen = SystemClock().wall()
    assert before <= seen <= datetime.now(UTC)
    assert seen.utcoffset() == timedelta()


async def test_sleeping_takes_at_least_its_time_on_the_monotonic_clock() -> None:
    clock = SystemClock()
    start = clock.monotonic()
    await clock.sleep(0.01)
    assert clock.monotonic() - start >= 0.009  # the loop's own resolution is subtracted


def test_chance_is_within_bounds_and_differs() -> None:
    clock = SystemClock()
    drawn = [clock.random() for _ in range(50)]
    assert all(0 <= number < 1 for number in drawn)
    assert len(set(drawn)) > 1


@given(st.integers(1, 128))
def test_random_bits_fit(bits: int) -> None:
    assert 0 <= SystemClock().random_bits(bits) < 2**bits


def test_a_forked_process_does_not_get_the_same_bits() -> None:
    clock = SystemClock()
    clock.random_bits(64)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, clock.random_bits(64).to_bytes(8, "big"))
        os._exit(0)
    os.waitpid(child, 0)
    childs = int.from_bytes(os.read(reading, 8), "big")
    os.close(reading)
    os.close(writing)

    assert childs != clock.random_bits(64)


def test_bits_come_once() -> None:
    clock = SystemClock()
    drawn = [clock.random_bits(62) for _ in range(2_000)]

    assert len(set(drawn)) == len(drawn)
    assert any(number >> 61 for number in drawn)
