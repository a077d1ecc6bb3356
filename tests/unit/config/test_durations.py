"""`jq_actors.config.durations`: what people may write, and what they are told otherwise."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jq_actors.config.durations import format_duration, parse_duration, parse_size


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("250ms", 0.25),
        ("30s", 30),
        ("5m", 300),
        ("1h", 3600),
        ("1d", 86400),
        ("1.5h", 5400),
        (" 30 s ", 30),
        ("0s", 0),
        (1500, 1.5),
        (timedelta(minutes=2), 120),
    ],
)
def test_durations_are_read(written: str | int | timedelta, seconds: float) -> None:
    assert parse_duration(written) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("30", "'30' is not a duration"),
        ("", "'' is not a duration"),
        ("5 minutes", "'5 minutes' is not a duration"),
        ("5M", "write a number with ms, s, m, h or d"),
        ("-5s", "'-5s' is not a duration"),
        ("1h30m", "'1h30m' is not a duration"),
        ("nans", "is not a duration"),
        (-1, "is negative"),
        (timedelta(seconds=-1), "is negative"),
        (True, "True is not a duration"),
        (1.5, "1.5 is not a duration"),
        (None, "None is not a duration"),
        ("99999999999d", "is too long"),
        (10**30, "is too long"),
    ],
)
def test_what_is_no_duration_is_told(written: Any, told: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        parse_duration(written)
    assert told in str(error.value)


@given(st.integers(min_value=0, max_value=10**13))
def test_what_is_formatted_is_read_back(milliseconds: int) -> None:
    duration = timedelta(milliseconds=milliseconds)
    assert parse_duration(format_duration(duration)) == duration


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(), "0ms"),
        (timedelta(milliseconds=1500), "1500ms"),
        (timedelta(seconds=90), "90s"),
        (timedelta(minutes=60), "1h"),
        (timedelta(days=30), "30d"),
    ],
)
def test_durations_are_shown_in_the_largest_whole_unit(duration: timedelta, text: str) -> None:
    assert format_duration(duration) == text


@pytest.mark.parametrize(
    ("written", "size"),
    [
        (0, 0),
        (512, 512),
        ("100000", 100_000),
        ("1K", 1024),
        ("512M", 512 * 1024**2),
        ("512m", 512 * 1024**2),
        ("1GiB", 1024**3),
        ("2 TB", 2 * 1024**4),
        ("64B", 64),
    ],
)
def test_sizes_are_read(written: str | int, size: int) -> None:
    assert parse_size(written) == size


@pytest.mark.parametrize("written", ["", "M", "1.5G", "-1", -1, True, None, "10 Mbit", "1P"])
def test_what_is_no_size_is_told(written: Any) -> None:
    with pytest.raises(ValueError, match="is not a size; write bytes"):
        parse_size(written)
