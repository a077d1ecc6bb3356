"""Text as every database can hold it."""

from __future__ import annotations

MAX_REASON = 500
"""Characters of the reason in the hot row."""
MAX_ERROR = 4_000
"""Characters of the error in an attempt and in the payload."""


def storable(text: str, length: int) -> str:
    """``text`` without NUL or half surrogate pairs, and of it at most ``length`` characters."""
    return text[:length].replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()
