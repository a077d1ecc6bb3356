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

from jq_actors.actors.plain_json import MAX_DEPTH, MAX_INT_BITS, ConversionError, check_json, is_json

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
    check_json(value)
    assert json.loads(json.dumps(value)) == value


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (datetime(2026, 1, 1), ": a datetime is not a JSON value"),  # noqa: DTZ001 - refused whatever its zone
        ((1, 2), ": a tuple is not a JSON value"),
        ({1, 2}, ": a set is not a JSON value"),
        (b"x", ": a bytes is not a JSON value"),
        (object(), ": an object is not a JSON value"),
        (Colour.RED, ": a Colour is not a JSON value"),
        (Level.LOW, ": a Level is not a JSON value"),
        (OrderedDict(a=1), ": an OrderedDict is not a JSON value"),
        (float("nan"), ": nan is not a JSON number"),
        ([1.0, float("-inf")], ", at [1]: -inf is not a JSON number"),
        ({"a": {"b": [0, (1,)]}}, ", at ['a']['b'][1]: a tuple is not a JSON value"),
        ({"a": {2: "x"}}, ", at ['a'][2]: an int is not a key of a JSON object; only a str is"),
        ("half \ud83d", ": the lone surrogate U+D83D at index 5 is not a character"),
        ({"\udc00": 1}, ", at ['\\udc00']: the lone surrogate U+DC00 at index 0 is not a character"),
        (1 << MAX_INT_BITS, ": an integer of more than 4000 digits cannot be read back"),
        (_nested(MAX_DEPTH + 1), f": it is nested deeper than {MAX_DEPTH} levels, or holds itself"),
        (_circle(), f": it is nested deeper than {MAX_DEPTH} levels, or holds itself"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isprintable() else type(value).__name__,
)
def test_what_would_not_is_refused_by_name(value: Any, told: str) -> None:
    with pytest.raises(ConversionError) as refused:
        check_json(value)
    assert refused.value.description.endswith(told)
    assert not is_json(value)


def test_the_limits_themselves_pass() -> None:
    check_json(_nested(MAX_DEPTH))
    largest = (1 << MAX_INT_BITS) - 1
    check_json([largest, -largest])
    assert json.loads(json.dumps(largest)) == largest
