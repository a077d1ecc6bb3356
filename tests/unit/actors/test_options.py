"""Options of actors and sendings: what each may be, and what is told when it is not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jq_actors.actors.options import check_identity, check_known, checked_options
from jq_actors.errors import ActorOptionError

OWNER = "Actor 'send_mail'"


def _when(retries: int, error: Exception) -> bool:
    return retries < 3


@pytest.mark.parametrize(
    ("name", "queue", "priority"),
    [("send_mail", "default", 0), ("a.b:c-D_1", "_x.y-1", 9), ("x" * 128, "q" * 128, 1)],
)
def test_names_and_priorities_that_are_allowed(name: str, queue: str, priority: int) -> None:
    check_identity(name, queue, priority)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"actor_name": ""}, "option 'actor_name': the name '' must be 1 to 128 of the characters"),
        ({"actor_name": "<lambda>"}, "option 'actor_name': the name '<lambda>' must be 1 to 128"),
        ({"actor_name": "x" * 129}, "must be 1 to 128 of the characters A-Z a-z 0-9 _ . : -"),
        ({"actor_name": "mail\n"}, "must be 1 to 128 of the characters"),
        ({"actor_name": 7}, "option 'actor_name': must be a str, not 7"),
        ({"queue_name": "1st"}, "option 'queue_name': must begin with a letter or _"),
        ({"queue_name": "a:b"}, "option 'queue_name': must begin with a letter or _"),
        ({"queue_name": "q" * 129}, "and have 1 to 128 letters, digits and . _ -"),
        ({"queue_name": None}, "option 'queue_name': must begin with a letter"),
        ({"queue_name": "dead"}, "'dead' is a name that jq_actors uses itself on the broker"),
        ({"queue_name": "g.mail"}, "'g.mail' is a name that jq_actors uses itself on the broker"),
        ({"queue_name": "n.mail"}, "'n.mail' is a name that jq_actors uses itself on the broker"),
        ({"queue_name": "p.mail"}, "'p.mail' is a name that jq_actors uses itself on the broker"),
        ({"priority": 10}, "option 'priority': must be a whole number from 0 to 9 (higher first), not 10"),
        ({"priority": -1}, "from 0 to 9 (higher first), not -1"),
        ({"priority": True}, "from 0 to 9 (higher first), not True"),
    ],
    ids=str,
)
def test_names_and_priorities_that_are_not(changed: Mapping[str, Any], told: str) -> None:
    identity: dict[str, Any] = {"actor_name": "send_mail", "queue_name": "default", "priority": 0, **changed}
    with pytest.raises(ActorOptionError) as refused:
        check_identity(**identity)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("max_retries", 0, 0),
        ("max_retries", None, None),
        ("min_backoff", timedelta(seconds=1.5), 1500),
        ("max_backoff", "1h", 3_600_000),
        ("time_limit", 30_000, 30_000),
        ("time_limit", math.inf, math.inf),
        ("max_age", timedelta(days=1), 86_400_000),
        ("throws", ValueError, ValueError),
        ("throws", (ValueError, KeyError), (ValueError, KeyError)),
        ("retry_when", _when, _when),
        ("store_results", True, True),
        ("on_failure", "report", "report"),
        ("priority", 9, 9),
        ("tags", ("b", "a", "b"), ["b", "a"]),
        ("position", 1, 1),
        ("delay", timedelta(minutes=5), 300_000),
        ("eta", 1_000, datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)),
        ("of_a_foreign_middleware", {"any": object}, {"any": object}),
    ],
    ids=lambda value: value.__name__ if value is _when else str(value),
)
def test_values_are_kept_in_the_form_that_middleware_reads(name: str, value: Any, kept: Any) -> None:
    assert checked_options(OWNER, {name: value}) == {name: kept}


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("max_retries", -1, "must be a whole number from 0, or None for no limit, not -1"),
        ("max_retries", "3", "not '3'"),
        ("max_retries", True, "not True"),
        ("min_backoff", -1, "the duration -1 is negative"),
        ("max_backoff", "soon", "'soon' is not a duration"),
        ("time_limit", 0, "must be longer than 0 ms"),
        ("time_limit", 1.5, "1.5 is not a duration"),
        ("throws", "ValueError", "must be an exception class or a tuple of them, not 'ValueError'"),
        ("throws", [ValueError], "must be an exception class or a tuple of them"),
        ("retry_when", 3, "must be a function of (retries, exception), not 3"),
        ("store_results", 1, "must be True or False, not 1"),
        ("on_failure", "not a name", "the name 'not a name' must be 1 to 128"),
        ("tags", "import", "must be a list of names, not 'import'"),
        ("tags", ["two words"], "the name 'two words' must be 1 to 128"),
        ("tags", [1], "must be a str, not 1"),
        ("position", 0, "must be a whole number from 1 to 9007199254740992, not 0"),
        ("position", "3", "must be a whole number from 1 to 9007199254740992, not '3'"),
        ("delay", -5, "the duration -5 is negative"),
        ("delay", True, "True is not a duration"),
        ("eta", datetime(2026, 1, 1), "the datetime 2026-01-01 00:00:00 is naive; give it a time zone"),  # noqa: DTZ001
        ("eta", 10**18, "1000000000000000000 ms since 1970 is not a datetime"),
        ("eta", "tomorrow", "must be an aware datetime, or whole milliseconds since 1970, not 'tomorrow'"),
        ("eta", True, "not True"),
    ],
    ids=str,
)
def test_impossible_values_are_told(name: str, value: Any, told: str) -> None:
    with pytest.raises(ActorOptionError) as refused:
        checked_options(OWNER, {name: value})
    assert str(refused.value).startswith(f"Actor 'send_mail': option {name!r}: ")
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "max_retrys",
            "unknown option 'max_retrys'; did you mean 'max_retries'? Allowed are max_retries, time_limit.",
        ),
        ("group", "unknown option 'group'. Allowed are max_retries, time_limit."),
    ],
)
def test_an_unknown_option_is_told_with_all_that_are_known(name: str, told: str) -> None:
    with pytest.raises(ActorOptionError) as refused:
        check_known(OWNER, [name], {"time_limit", "max_retries"})
    assert str(refused.value) == f"{OWNER}: {told}"
    check_known(OWNER, ["time_limit"], {"time_limit"})
