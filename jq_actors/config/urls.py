"""Mask the secrets of addresses, in everything that people or logs may see."""

from __future__ import annotations

import re

_MASK = "***"
_PASSWORD = re.compile(r"(?P<before>[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#@:]*:)\S*@")
_TOKEN = re.compile(r"(?P<before>[A-Za-z][A-Za-z0-9+.-]*://)[^\s/?#@:]+@")
_QUERY_VALUE = re.compile(r"(?P<before>[?&;](?P<name>[^\s=&;#]+)=)[^\s&;#]*")
_SECRET_NAME = re.compile(r"pass|pwd|secret|token|key|credential|auth|sig", re.IGNORECASE)


def mask_url(url: str) -> str:
    """Mask the password in ``url``, and the values of query parameters whose names sound secret (A77).

    A user name that is followed by a password stays, because it helps to find a mistake. ``url`` may also be text that
    is not a valid URL, or that only contains one, since such text ends up in messages too. In doubt, more is masked:
    the password extends to the last ``@`` before white space, and user info without a password may be a token.
    """
    masked = _TOKEN.sub(rf"\g<before>{_MASK}@", _PASSWORD.sub(rf"\g<before>{_MASK}@", url))
    return _QUERY_VALUE.sub(_mask_query_value, masked)


def _mask_query_value(match: re.Match[str]) -> str:
    return f"{match['before']}{_MASK}" if _SECRET_NAME.search(match["name"]) else match[0]
