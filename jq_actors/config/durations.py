"""Read and format durations and sizes as people write them (``30s``, ``5m``, ``512M``); bounds of a job's times."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_UNITS = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_SIZE = re.compile(r"(\d+)\s*(?:([KMGT])i?)?B?", re.IGNORECASE)


LONGEST_DELAY = timedelta(days=36_500)
"""A hundred years. Someone who asks a job to wait longer has mistaken the unit."""

_MARGIN = timedelta(days=2)
FIRST_TIME, LAST_TIME = datetime.min.replace(tzinfo=UTC) + _MARGIN, datetime.max.replace(tzinfo=UTC) - _MARGIN
"""The bounds of a job's times. Closer to the ends of the calendar a time does not exist in every time zone, and nothing
can be added to or subtracted from it."""


def parse_duration(value: str | int | timedelta) -> timedelta:
    """Convert ``value`` to a timedelta.

    Parameters:
      value: text with a unit (``250ms``, ``30s``, ``5m``, ``1h``, ``1.5d``), an int in milliseconds, as everywhere in
        Dramatiq, or a timedelta.

    Raises:
      ValueError: the unit is missing or unknown, the duration is negative or beyond the range of a timedelta, or
        ``value`` has another type.
    """
    match value:
        case timedelta():
            duration = value
        case bool():  # a bool is an int, but here a mistake
            raise ValueError(f"{value!r} is not a duration; {_ALLOWED}")
        case int():
            duration = _times(value, _UNITS["ms"], value)
        case str():
            duration = _from_text(value)
        case _:
            raise ValueError(f"{value!r} is not a duration; {_ALLOWED}")
    if duration < timedelta():
        raise ValueError(f"the duration {value!r} is negative")
    return duration


def check_time(moment: datetime) -> datetime:
    """Convert ``moment``, which must be aware, to UTC.

    Raises:
      ValueError: it is outside of `FIRST_TIME` to `LAST_TIME`.
    """
    if not FIRST_TIME <= moment <= LAST_TIME:
        raise ValueError(f"the time {moment.isoformat()} is at an end of the calendar")
    return moment.astimezone(UTC)


def format_duration(duration: timedelta) -> str:
    """``duration`` as `parse_duration` reads it, rounded to 1 ms, in the largest unit that needs no fraction."""
    for unit in ("d", "h", "m", "s"):
        if duration and duration % _UNITS[unit] == timedelta():
            return f"{duration // _UNITS[unit]}{unit}"
    return f"{round(duration / _UNITS['ms'])}ms"


def parse_size(value: str | int) -> int:
    """Convert ``value`` to a number of bytes.

    Parameters:
      value: an int (bytes), or text such as ``512M``, ``1GiB``, ``100000``. K, M, G and T are powers of 1024, with or
        without ``i`` and ``B``, as in the memory limits of service managers.

    Raises:
      ValueError: ``value`` is not a size.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(
            f"{value!r} is not a size; write bytes as a number, or a number with K, M, G or T such as 512M"
        )
    return int(match[1]) << " KMGT".index((match[2] or " ").upper()) * 10


_ALLOWED = "write a number with ms, s, m, h or d such as 30s, or whole milliseconds as a number"


def _from_text(text: str) -> timedelta:
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a duration; {_ALLOWED}")
    return _times(float(match[1]), _UNITS[match[2]], text)


def _times(number: float, unit: timedelta, written: object) -> timedelta:
    try:
        return number * unit
    except OverflowError:
        raise ValueError(f"the duration {written!r} is too long; at most {timedelta.max.days} days") from None
