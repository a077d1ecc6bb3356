"""GroupFifo: jobs of a group run in order, and groups share the workers fairly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from jq_actors.chain.middleware import JobMiddleware
from jq_actors.config.loading import did_you_mean
from jq_actors.model.group_rules import GroupRule, GroupRules, OnFailure, OnGap, check_group, check_rules, rule_name
from jq_actors.model.lane import Fairness

from .options import duration, one_of, switch, whole_number

SHORTEST = timedelta(milliseconds=100)


class GroupFifo(JobMiddleware):
    """Lets jobs have a group: the jobs of one group run in the order in which they were sent, one at a time.

    It does nothing in the chain itself: it provides the rules, which the core applies. An actor names the group of its
    jobs with the option ``group``: a template over its parameters (``"account-{account_id}"``), or a function that
    takes the same arguments and returns the name, or ``None`` for no group. A single send may have ``group`` (a name,
    or ``None``), and ``position``, the job's number in the group.

    Parameters:
      rules: the rules of groups. The first rule whose glob ``match`` fits a group's name applies. Each is a mapping
        with the fields of `jq_actors.model.group_rules.GroupRule`. A group that no rule fits is a plain FIFO.
      quantum: how many jobs of a group run, times its weight, before other groups get their turn.
      time_slice: how long a group runs, times its weight, before other groups get their turn. At least 100 ms.
      idle: without persistence, how long a group's queue on the broker is kept without work. At least 100 ms.

    Raises:
      ValueError: an option is out of range, or the rules contradict each other.
    """

    group_rules: GroupRules

    def __init__(
        self,
        *,
        rules: Sequence[Mapping[str, Any]] | None = None,
        quantum: int = 50,
        time_slice: str | int | timedelta = "1s",
        idle: str | int | timedelta = "60s",
    ) -> None:
        self.group_rules = GroupRules(
            _checked_rules([] if rules is None else rules),
            Fairness(
                quantum=whole_number("quantum", quantum, at_least=1, at_most=1_000_000),
                time_slice=duration("time_slice", time_slice, at_least=SHORTEST),
                idle=duration("idle", idle, at_least=SHORTEST),
            ),
        )
        for number, rule in enumerate(self.group_rules.rules):
            if rule.needs_rows and not self.requires:
                named = " and ".join(rule.needs_rows)
                self.requires = {"persistence": f"{rule_name(number, rule.match)} has {named}, which needs rows"}

    @property
    def actor_options(self) -> set[str]:
        """The options of an actor and of a single send; only a send may have ``position``."""
        return {"group", "position"}


def _checked_rules(given: object) -> tuple[GroupRule, ...]:
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise ValueError(f"rules must be a list such as [{{match: account-*, concurrency: 2}}], not {given!r}")
    rules = tuple(_checked_rule(number, rule) for number, rule in enumerate(given))
    check_rules(rules)
    return rules


def _checked_rule(number: int, given: object) -> GroupRule:
    if not isinstance(given, Mapping):
        raise ValueError(f"rules[{number}] must be a mapping such as {{match: account-*}}, not {given!r}")
    if "match" not in given:
        raise ValueError(f"rules[{number}] needs a match: a glob for the names of groups, such as account-*")
    name = rule_name(number, _match(f"rules[{number}] match", given["match"]))
    for key in given:
        if key not in _CHECKS:
            raise ValueError(f"{name}: unknown key {key!r}; {did_you_mean(key, _CHECKS)}")
    return GroupRule(**{key: _CHECKS[key](f"{name}: {key}", value) for key, value in given.items()})


def _match(name: str, value: object) -> str:
    # The glob also names the lanes of partitions, so it must be a possible name of a group.
    try:
        return check_group(value)
    except ValueError:
        raise ValueError(f"{name} must be a glob for the names of groups, such as account-*, not {value!r}") from None


def _or_none(check: Callable[[str, object], Any]) -> Callable[[str, object], Any]:
    return lambda name, value: None if value is None else check(name, value)


_CHECKS: dict[str, Callable[[str, object], Any]] = {
    "match": _match,
    "concurrency": partial(whole_number, at_least=1, at_most=1000),
    "on_failure": lambda name, value: OnFailure(one_of(name, value, tuple(OnFailure))),
    "overtake": switch,
    "weight": partial(whole_number, at_least=1, at_most=1000),
    "max_size": _or_none(partial(whole_number, at_least=1)),
    "partitions": _or_none(partial(whole_number, at_least=1, at_most=10_000)),
    "gap_timeout": _or_none(partial(duration, at_least=SHORTEST)),
    "on_gap": lambda name, value: OnGap(one_of(name, value, tuple(OnGap))),
}
