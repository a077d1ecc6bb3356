"""Plain JSON: what passes is what the standard library's JSON carries unchanged."""

from __future__ import annotations

import json
from collections import OrderedDict
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jq_actors.actors.plain_json import MAX_DEPTH, MAX_INT_BITS, MisfitError, check_plain, is_plain

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def _circle() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@given(JSON)
def test_what_passes_arrives_unchanged(value: Any) -> None:
    check_plain(value)
    assert json.loads(json.dumps(value)) == value


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (datetime(2026, 1, 1), ": a datetime is no JSON value"),  # noqa: DTZ001 - refused whatever its zone
        ((1, 2), ": a tuple is no JSON value"),
        ({1, 2}, ": a set is no JSON value"),
        (b"x", ": a bytes is no JSON value"),
        (object(), ": an object is no JSON value"),
        (Colour.RED, ": a Colour is no JSON value"),
        (Level.LOW, ": a Level is no JSON value"),
        (OrderedDict(a=1), ": an OrderedDict is no JSON value"),
        (float("nan"), ": nan is no JSON number"),
        ([1.0, float("-inf")], ", at [1]: -inf is no JSON number"),
        ({"a": {"b": [0, (1,)]}}, ", at ['a']['b'][1]: a tuple is no JSON value"),
        ({"a": {2: "x"}}, ", at ['a'][2]: an int is no key of a JSON object; only a str is"),
        ("half \ud83d", ": the lone surrogate U+D83D at index 5 is no character"),
        ({"\udc00": 1}, ", at ['\\udc00']: the lone surrogate U+DC00 at index 0 is no character"),
        (1 << MAX_INT_BITS, ": an integer of more than 4000 digits cannot be read back"),
        (_nested(MAX_DEPTH + 1), f": it is nested deeper than {MAX_DEPTH} levels, or holds itself"),
        (_circle(), f": it is nested deeper than {MAX_DEPTH} levels, or holds itself"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isprintable() else type(value).__name__,
)
def test_what_would_not_is_refused_by_name(value: Any, told: str) -> None:
    with pytest.raises(MisfitError) as refused:
        check_plain(value)
    assert refused.value.told.endswith(told)
    assert not is_plain(value)


def test_the_limits_themselves_pass() -> None:
    check_plain(_nested(MAX_DEPTH))
    largest = (1 << MAX_INT_BITS) - 1
    check_plain([largest, -largest])
    assert json.loads(json.dumps(largest)) == largest
