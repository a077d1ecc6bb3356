"""Text from outside, made safe to print."""

from __future__ import annotations

from typing import Any


def escape(value: Any) -> Any:
    """Make the control characters of a text visible, so that no value can forge a log line (A81)."""
    if not isinstance(value, str) or value.isprintable():
        return value
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)
