"""The machine's own clock."""

from __future__ import annotations

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
