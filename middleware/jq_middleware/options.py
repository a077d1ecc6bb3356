"""Checks of middleware options. Each raises a ``ValueError`` that names the option and says what is allowed."""

from __future__ import annotations

from datetime import timedelta

from jq_actors.config.durations import format_duration, parse_duration, parse_size


def duration(name: str, value: object, *, at_least: timedelta = timedelta()) -> timedelta:
    """Convert ``value`` to a timedelta.

    Parameters:
      name: the option's name, for errors.
      value: a timedelta, an int in milliseconds, or text such as ``30s``, ``5m``, ``1d``.
      at_least: the shortest duration that is allowed.
    """
    if not isinstance(value, str | int | timedelta):
        raise ValueError(f"{name} must be a time such as 30s, not {value!r}")
    try:
        parsed = parse_duration(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if parsed < at_least:
        raise ValueError(f"{name} must be at least {format_duration(at_least)}, not {value!r}")
    return parsed


def whole_number(name: str, value: object, *, at_least: int, at_most: int | None = None) -> int:
    """Return ``value`` if it is an int from ``at_least`` to ``at_most`` (``None``: no upper bound)."""
    bounds = f"of at least {at_least}" if at_most is None else f"from {at_least} to {at_most}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name} must be a whole number {bounds}, not {value!r}")
    if value < at_least or (at_most is not None and value > at_most):
        raise ValueError(f"{name} must be a whole number {bounds}, not {value}")
    return value


def size(name: str, value: object, *, at_least: int, at_most: int) -> int:
    """Convert ``value``, an int or text such as ``512K`` or ``1MiB``, to a number of bytes in this range."""
    if not isinstance(value, str | int):
        raise ValueError(f"{name} must be a size such as 1MiB, not {value!r}")
    try:
        parsed = parse_size(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if not at_least <= parsed <= at_most:
        raise ValueError(f"{name} must be from {at_least} to {at_most} bytes, not {value!r}")
    return parsed


def one_of(name: str, value: object, allowed: tuple[str, ...]) -> str:
    """Return ``value`` if it is one of ``allowed``."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
    return value


def switch(name: str, value: object) -> bool:
    """Return ``value`` if it is a bool."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, not {value!r}")
    return value
