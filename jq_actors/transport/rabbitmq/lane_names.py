"""The name of a lane's queue on the broker, and the body of a token, which names the lane."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from typing import Any
from urllib.parse import quote

from jq_actors.model.lane import Lane

MAX_NAME = 255
"""Bytes that the name of a queue may have."""
NAMES_REMEMBERED = 16384


class Why(StrEnum):
    """Why a token was put into the lobby, if not because its lane has work."""

    DOUBTED = "doubted"
    """Its first holder is gone, and may have left a consumer that is still counted (`tokens.looks_again`)."""
    IDLE = "idle"
    """The lane was idle for long: the worker that gets the token deletes it, if it is still empty."""


@lru_cache(NAMES_REMEMBERED)
def lane_name(namespace: str, lane: Lane) -> str:
    """The name of the broker's queue for ``lane``. It depends on ``seats``, which decides an argument of the queue."""
    kind, after = "g" if lane.seats == 1 else "n", ""
    if lane.partition is not None:
        number, count = lane.partition
        kind, after = "p", f".{number}of{count}"
    before = f"{namespace}.{kind}.{lane.queue}."
    return before + _encoded(lane.key, MAX_NAME - len(before) - len(after)) + after


def token_of(lane: Lane, why: Why | None = None) -> bytes:
    """The body of a token: all that a worker has to know about a lane that it has never seen."""
    fields: dict[str, Any] = {
        "queue": lane.queue,
        "key": lane.key,
        "seats": lane.seats,
        "partition": lane.partition,
        "weight": lane.weight,
    }
    if why is not None:
        fields["why"] = why
    return json.dumps(fields, ensure_ascii=False).encode()


def why_of(token: bytes) -> Why | None:
    """The ``why`` of `token_of`; ``None`` also for a value of a later version. Raises ValueError as `lane_of` does."""
    return _read(token)[1]


def lane_of(token: bytes) -> Lane:
    """The lane that the body of a token names.

    Raises:
      ValueError: the body names no lane.
    """
    return _read(token)[0]


@lru_cache(maxsize=1024)  # the tokens of a lane are equal, and each is read twice
def _read(token: bytes) -> tuple[Lane, Why | None]:
    fields = json.loads(token)
    if not isinstance(fields, dict):
        raise ValueError("a token is a JSON object")
    queue, key, seats = fields.get("queue"), fields.get("key"), fields.get("seats", 1)
    weight, partition = fields.get("weight", 1), fields.get("partition")
    if not isinstance(queue, str) or not isinstance(key, str):
        raise ValueError("a token names a queue and a key")
    if not _is_count(seats) or not _is_count(weight):
        raise ValueError("seats and weight of a token are numbers from 1 on")
    lane = Lane(queue, key, seats, None if partition is None else _partition(partition), weight)
    why = fields.get("why")
    return lane, Why(why) if why in tuple(Why) else None


def _encoded(key: str, most: int) -> str:
    # aiormq allows neither "%" nor "~" in a name. A dot would end the user's queue, "#" begins a hash.
    encoded = quote(key, safe="").replace("%", "@").replace(".", "@2E").replace("~", "@7E")
    if len(encoded) <= most:
        return encoded
    digest = "#" + urlsafe_b64encode(sha256(key.encode()).digest()).decode().rstrip("=")
    return (encoded[: max(0, most - len(digest))] + digest)[:most]


def _partition(value: Any) -> tuple[int, int]:
    match value:
        case [int(number), int(count)] if 0 <= number < count:
            return number, count
    raise ValueError("the partition of a token is a number and how many there are")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
