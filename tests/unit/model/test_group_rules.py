"""Groups: their names, the rule of each, and the lane that carries it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jq_actors.model.group_rules import MAX_GROUP, MAX_POSITION, GroupRule, GroupRules, check_group, check_position
from jq_actors.model.lane import Lane

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=MAX_GROUP)
RULES = GroupRules(
    (
        GroupRule("account-1", weight=9),
        GroupRule("account-*", concurrency=3, weight=2),
        GroupRule("sensor-[0-9]*", partitions=16, weight=4),
        GroupRule("Größe?"),
    )
)


@given(NAMES)
def test_any_text_of_512_characters_names_a_group(name: str) -> None:
    assert check_group(name) == name


@pytest.mark.parametrize(
    ("group", "shown"),
    [
        ("", "not ''"),
        ("x" * 513, "not one of 513"),
        ("a\0b", "without NUL, or None, not 'a\\x00b'"),
        (7, "not 7"),
        (b"bytes", "not b'bytes'"),
        ("half \ud800", "must be text that UTF-8 can encode, not 'half \\ud800'"),
    ],
    ids=repr,
)
def test_what_names_no_group_is_told(group: object, shown: str) -> None:
    with pytest.raises(ValueError, match="must be ") as refused:
        check_group(group)
    assert str(refused.value).endswith(shown)


@pytest.mark.parametrize("position", [1, 2, MAX_POSITION])
def test_numbers_that_are_positions(position: int) -> None:
    assert check_position(position) == position


@pytest.mark.parametrize("position", [0, -1, MAX_POSITION + 1, True, 1.0, "1", None], ids=repr)
def test_what_is_no_position_is_told(position: object) -> None:
    with pytest.raises(ValueError, match=f"must be a whole number from 1 to {MAX_POSITION}, not {position!r}"):
        check_position(position)


@pytest.mark.parametrize(
    ("group", "rule"),
    [
        ("account-1", RULES.rules[0]),
        ("account-12", RULES.rules[1]),
        ("account-", RULES.rules[1]),
        ("Account-1", GroupRule()),
        ("sensor-7-a", RULES.rules[2]),
        ("sensor-a", GroupRule()),
        ("Größe1", RULES.rules[3]),
    ],
)
def test_the_first_rule_that_matches_counts(group: str, rule: GroupRule) -> None:
    assert RULES.rule_of(group) == rule


def test_a_group_has_a_lane_of_its_own_in_each_queue() -> None:
    assert RULES.lane_of("mail", "account-12") == Lane("mail", "account-12", seats=3, weight=2)
    assert RULES.lane_of("heavy", "x") == Lane("heavy", "x")


@given(st.integers(0))
def test_of_partitioned_groups_each_is_in_one_of_so_many_lanes(number: int) -> None:
    lane = RULES.lane_of("mail", f"sensor-{number}")
    assert lane == RULES.lane_of("mail", f"sensor-{number}")
    assert lane.partition is not None
    assert lane == Lane("mail", "sensor-[0-9]*", partition=lane.partition, weight=4)
    assert 0 <= lane.partition[0] < lane.partition[1] == 16


def test_the_partition_of_a_group_never_changes() -> None:
    # Of every process and every release: a group in two lanes at once has no order.
    assert [RULES.lane_of("mail", f"sensor-{n}").partition for n in (1, 2, 3)] == [(3, 16), (9, 16), (15, 16)]


def test_rules_that_differ_do_not_share_what_they_remember() -> None:
    others: Any = GroupRules((GroupRule("account-*", concurrency=5),))
    assert RULES.rule_of("account-7").concurrency == 3
    assert others.rule_of("account-7").concurrency == 5
