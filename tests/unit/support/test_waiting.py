"""Waiting has a deadline, and an error that says what it was for."""

from __future__ import annotations

import itertools

import pytest

from tests.support.waiting import NeverHappenedError, eventually, eventually_sync


async def test_it_returns_what_the_predicate_returned_at_last() -> None:
    counter = itertools.count()
    assert await eventually(lambda: next(counter) // 3, 5, "a third look") == 1

    async def look() -> str:
        return "seen"

    assert await eventually(look, 5, "an async look") == "seen"
    assert eventually_sync(lambda: "seen", 5, "a look") == "seen"


async def test_in_vain_it_says_what_for_and_what_was_seen() -> None:
    with pytest.raises(NeverHappenedError, match=r"0\.1 s without success for: rain\. Last seen: 0\."):
        await eventually(lambda: 0, 0.1, "rain")
    with pytest.raises(NeverHappenedError, match="rain"):
        eventually_sync(lambda: None, 0.1, "rain")


async def test_an_error_of_the_predicate_is_not_hidden() -> None:
    def look() -> bool:
        raise KeyError("broken")

    with pytest.raises(KeyError):
        await eventually(look, 5, "nothing")
