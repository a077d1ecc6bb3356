"""Annotations are evaluated one by one, in the names of their module and of the function around."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import date
from types import GenericAlias
from typing import Any, Literal

import pytest

from jq_actors.actors.annotations import Unresolved, annotation_text, names_around, resolve

NAMES = {"date": date, "Order": dict[str, int]}


def _decorated(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return wrapper


def function() -> None: ...


class WithCall:
    def __call__(self) -> None: ...


@pytest.mark.parametrize(
    ("annotation", "meant"),
    [
        (int, int),
        ("date", date),
        ("list[date]", list[date]),
        (GenericAlias(list, ("Order",)), list[dict[str, int]]),
        ("date | None", date | None),
        (None, type(None)),
        (Literal["date"], Literal["date"]),
    ],
    ids=str,
)
def test_strings_are_evaluated_at_any_depth(annotation: Any, meant: Any) -> None:
    assert resolve(annotation, NAMES) == meant


def test_the_names_of_the_function_around_win() -> None:
    assert resolve("Order", NAMES, {"Order": int}) is int
    assert resolve("date", NAMES, {"Order": int}) is date


@pytest.mark.parametrize("annotation", ["Missing", "list[Missing]", "not an annotation", "date.missing", "1 / 0"])
def test_what_cannot_be_evaluated_says_why(annotation: str) -> None:
    resolved = resolve(annotation, NAMES)
    assert isinstance(resolved, Unresolved)
    assert resolved.source == annotation
    assert "Error" in resolved.reason


@pytest.mark.parametrize(
    "fn",
    [function, _decorated(function), WithCall(), WithCall().__call__],
    ids=["function", "decorated", "with __call__", "method"],
)
def test_the_names_are_those_of_the_defining_module(fn: Callable[..., Any]) -> None:
    assert names_around(fn)["NAMES"] is NAMES


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (date, "date"),
        (type(None), "None"),
        (list[int], "list[int]"),
        (Literal["a"], "Literal['a']"),
        (Any, "Any"),
    ],
    ids=str,
)
def test_annotations_are_shown_as_written(annotation: Any, text: str) -> None:
    assert annotation_text(annotation) == text
