"""`group_fifo`: its options become rules, and every mistake in one is told with the rule's place and match."""

from __future__ import annotations

import re
from dataclasses import fields
from datetime import timedelta
from typing import Any

import pytest

from jq_actors.chain.loading import build_middleware
from jq_actors.chain.middleware import JobMiddleware
from jq_actors.config.loading import load_config
from jq_actors.errors import ConfigError
from jq_actors.model.group_rules import GroupRule, OnFailure, OnGap
from jq_actors.model.lane import Fairness
from jq_middleware.group_fifo import GroupFifo
from jq_middleware.retry import Retry

PERSISTENCE: dict[str, Any] = {"persistence": {"url": "sqlite+aiosqlite:///never-opened.db"}}


def _problems(*middleware: Any) -> list[str]:
    with pytest.raises(ConfigError) as error:
        build_middleware(load_config({"middleware": list(middleware)}))
    return [str(problem) for problem in error.value.problems]


def test_without_options_each_group_is_a_plain_fifo() -> None:
    for layer in (GroupFifo(), GroupFifo(rules=None), GroupFifo(rules=[])):
        assert layer.group_rules.rules == ()
        assert layer.group_rules.fairness == Fairness(50, timedelta(seconds=1), timedelta(seconds=60))
        assert not layer.requires
    assert JobMiddleware().group_rules is None
    assert Retry().group_rules is None


def test_each_field_of_a_rule_can_be_configured() -> None:
    written: dict[str, Any] = {
        "match": "account-*",
        "concurrency": 3,
        "on_failure": "cancel_rest",
        "overtake": True,
        "weight": 2,
        "max_size": 100,
        "partitions": None,
        "gap_timeout": "1h",
        "on_gap": "pause",
    }
    layer = GroupFifo(rules=[written, {"match": "*", "partitions": 64}], quantum=7, time_slice=500, idle="5m")
    first, second = layer.group_rules.rules
    assert written.keys() == {field.name for field in fields(GroupRule)}
    assert first == GroupRule(
        "account-*", 3, OnFailure.CANCEL_REST, True, 2, 100, None, timedelta(hours=1), OnGap.PAUSE
    )
    assert second == GroupRule("*", partitions=64)
    assert layer.group_rules.fairness == Fairness(7, timedelta(milliseconds=500), timedelta(minutes=5))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"quantum": 0}, "quantum must be a whole number from 1 to 1000000, not 0"),
        ({"time_slice": "5"}, "time_slice: '5' is not a duration"),
        ({"idle": 99}, "idle must be at least 100ms, not 99"),
        ({"rules": "account-*"}, "rules must be a list such as [{match: account-*, concurrency: 2}], not 'account-*'"),
        ({"rules": {"match": "*"}}, "rules must be a list"),
        ({"rules": ["*"]}, "rules[0] must be a mapping such as {match: account-*}, not '*'"),
        ({"rules": [{"weight": 2}]}, "rules[0] needs a match: a glob for the names of groups, such as account-*"),
    ],
    ids=str,
)
def test_impossible_options_are_told(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(told)):
        GroupFifo(**options)


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"concurency": 2}, "unknown key 'concurency'; did you mean concurrency?"),
        ({7: 2}, "unknown key 7; allowed are concurrency, gap_timeout, match, max_size, on_failure, on_gap, "),
        ({"concurrency": 0}, "concurrency must be a whole number from 1 to 1000, not 0"),
        ({"concurrency": "2"}, "concurrency must be a whole number from 1 to 1000, not '2'"),
        ({"concurrency": None}, "concurrency must be a whole number from 1 to 1000, not None"),
        ({"on_failure": "stop"}, "on_failure must be one of continue, pause, cancel_rest, not 'stop'"),
        ({"overtake": "yes"}, "overtake must be true or false, not 'yes'"),
        ({"weight": True}, "weight must be a whole number from 1 to 1000, not True"),
        ({"max_size": 0}, "max_size must be a whole number of at least 1, not 0"),
        ({"partitions": 10_001}, "partitions must be a whole number from 1 to 10000, not 10001"),
        ({"gap_timeout": "soon"}, "gap_timeout: 'soon' is not a duration"),
        ({"gap_timeout": 0}, "gap_timeout must be at least 100ms, not 0"),
        ({"on_gap": "cancel_rest"}, "on_gap must be one of continue, pause, not 'cancel_rest'"),
        ({"partitions": 4, "concurrency": 2}, "partitions carry groups of concurrency 1, not 2; remove one"),
        ({"on_gap": "pause"}, "on_gap: pause needs a gap_timeout, such as 1h; without it a gap waits for ever"),
    ],
    ids=str,
)
def test_what_is_wrong_in_a_rule_is_told_with_its_place_and_match(rule: dict[Any, Any], told: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(f"rules[1] (account-*): {told}")):
        GroupFifo(rules=[{"match": "first-*"}, {"match": "account-*", **rule}])


@pytest.mark.parametrize("match", ["", 7, None, "a\0b", "x" * 513, "\ud800"], ids=repr)
def test_a_match_is_what_a_group_may_be_called(match: object) -> None:
    with pytest.raises(ValueError, match=r"^rules\[0\] match must be a glob for the names of groups, such as account-"):
        GroupFifo(rules=[{"match": match}])


@pytest.mark.parametrize("earlier", ["account-*", "*"])
def test_a_rule_that_is_never_reached_is_refused(earlier: str) -> None:
    with pytest.raises(ValueError, match="comes first") as refused:
        GroupFifo(rules=[{"match": "x"}, {"match": earlier}, {"match": "account-*"}])
    assert str(refused.value) == f"rules[2] (account-*) is never reached: rules[1] ({earlier}) comes first"


def test_in_the_configuration_a_mistake_has_its_key_path() -> None:
    assert _problems(
        {"group_fifo": {"rules": [{"match": "account-*", "weight": 0}]}}, {"group_fifo": {"quantm": 3}}
    ) == [
        "middleware[0].group_fifo.rules: rules[0] (account-*): weight must be a whole number from 1 to 1000, not 0",
        "middleware[1].group_fifo.quantm: unknown option; did you mean quantum?",
        "middleware[1].group_fifo: is listed twice; the first is middleware[0].group_fifo",
    ]


@pytest.mark.parametrize(
    ("rule", "named"),
    [
        ({"on_failure": "pause"}, "on_failure"),
        ({"max_size": 5}, "max_size"),
        ({"gap_timeout": "1h"}, "gap_timeout"),
        ({"on_failure": "cancel_rest", "max_size": 5}, "on_failure and max_size"),
    ],
    ids=str,
)
def test_a_rule_that_needs_rows_needs_persistence_earlier(rule: dict[str, Any], named: str) -> None:
    rules = [{"match": "first-*", "concurrency": 2}, {"match": "account-*", **rule}]
    layer = {"group_fifo": {"rules": rules}}
    why = f"rules[1] (account-*) has {named}, which needs rows"
    assert _problems(layer) == [f"middleware[0].group_fifo: must come after persistence, which is not listed: {why}"]
    assert _problems(layer, PERSISTENCE) == [
        f"middleware[0].group_fifo: must come after persistence, which comes later; move it up: {why}"
    ]
    assert len(build_middleware(load_config({"middleware": [PERSISTENCE, layer]}))) == 2


def test_fifo_itself_needs_no_persistence() -> None:
    rules = [{"match": "*", "concurrency": 2, "overtake": True, "weight": 3}]
    [layer] = build_middleware(load_config({"middleware": [{"group_fifo": {"rules": rules}}]}))
    assert isinstance(layer, GroupFifo)
    assert layer.actor_options == {"group", "position"}
