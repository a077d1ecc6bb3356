"""Addresses with their secrets masked, for everything that a person or a log may see."""

from __future__ import annotations

import re

_MASK = "***"
_PASSWORD = re.compile(r"(?P<before>[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#@:]*:)\S*@")
_TOKEN = re.compile(r"(?P<before>[A-Za-z][A-Za-z0-9+.-]*://)[^\s/?#@:]+@")
_QUERY_VALUE = re.compile(r"(?P<before>[?&;](?P<name>[^\s=&;#]+)=)[^\s&;#]*")
_SECRET_NAME = re.compile(r"pass|pwd|secret|token|key|credential|auth|sig", re.IGNORECASE)


def mask_url(url: str) -> str:
    """``url`` without its password and without the values of query parameters whose names sound secret (A77).

    The user name stays where a password follows it: it helps to find a mistake. Works on text that is no
    valid URL, or that only contains one, for such text ends up in messages too. In doubt more is masked: the
    password reaches to the last ``@`` before white space, and user info without a password may be a token.
    """
    masked = _TOKEN.sub(rf"\g<before>{_MASK}@", _PASSWORD.sub(rf"\g<before>{_MASK}@", url))
    return _QUERY_VALUE.sub(_mask_query_value, masked)


def _mask_query_value(match: re.Match[str]) -> str:
    return f"{match['before']}{_MASK}" if _SECRET_NAME.search(match["name"]) else match[0]
