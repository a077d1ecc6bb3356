"""Cursors of pages: opaque text that says where the next page begins."""

from __future__ import annotations

import base64
import binascii


def encode_cursor(kind: str, last: str | int) -> str:
    """The cursor that continues after ``last``, on pages of a ``kind``."""
    return base64.urlsafe_b64encode(f"{kind}:{last}".encode()).decode().rstrip("=")


def decode_cursor(kind: str, cursor: str) -> str | None:
    """What ``cursor`` continues after; ``None``: it is not a cursor of this ``kind`` of page."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    found, _, last = text.partition(":")
    return last if found == kind else None
