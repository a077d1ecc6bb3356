"""Groups: jobs that run in order. Their rules, and the lanes that carry their jobs without persistence.

A group is known by its name alone, and its jobs may be in several queues. The rows keep the order over all of them
(`turns`). Without persistence each queue has a lane for the group, which keeps its own order, and that is all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import lru_cache
from zlib import crc32

from .lane import Fairness, Lane

MAX_GROUP = 512
"""Characters of a group's name."""
MAX_POSITION = 2**53
"""The largest number that a job may have in its group: the largest that every reader of JSON keeps."""
RULES_REMEMBERED = 4096
"""Groups whose rule is known without matching its name again."""


class OnFailure(StrEnum):
    """What becomes of a group when a job of it has failed for good."""

    CONTINUE = "continue"
    PAUSE = "pause"
    CANCEL_REST = "cancel_rest"


class OnGap(StrEnum):
    """What becomes of a numbered group whose next number has not come within ``gap_timeout``."""

    CONTINUE = "continue"
    PAUSE = "pause"


@dataclass(frozen=True, slots=True)
class GroupRule:
    """The rule for the groups whose names match ``match``."""

    match: str = "*"
    """A glob as of `fnmatch`, case sensitive."""
    concurrency: int = 1
    """How many jobs of a group may run at once, over all processes."""
    on_failure: OnFailure = OnFailure.CONTINUE
    overtake: bool = False
    """Whether those behind it may pass a job that waits for its retry."""
    weight: int = 1
    """Its share: its turn lasts for ``quantum`` · ``weight`` jobs, or that much longer."""
    max_size: int | None = None
    """Most jobs of a group that may wait; a sending beyond is refused."""
    partitions: int | None = None
    """Without persistence: this many lanes for all such groups, instead of one for each. With persistence there are
    no lanes, and this has no effect."""
    gap_timeout: timedelta | None = None
    """How long a numbered group waits for a number that has not come; ``None``: for ever."""
    on_gap: OnGap = OnGap.CONTINUE

    @property
    def needs_rows(self) -> tuple[str, ...]:
        """Those of its fields that can only be kept with persistence."""
        asked = {
            "on_failure": self.on_failure is not OnFailure.CONTINUE,
            "max_size": self.max_size is not None,
            "gap_timeout": self.gap_timeout is not None,
        }
        return tuple(name for name, is_asked in asked.items() if is_asked)


_DEFAULT = GroupRule()


@dataclass(frozen=True)
class GroupRules:
    """All rules of one configuration; the first that matches a name counts."""

    rules: tuple[GroupRule, ...] = ()
    fairness: Fairness = field(default_factory=Fairness)

    def rule_of(self, group: str) -> GroupRule:
        """The rule of ``group``; without a match, that of a plain FIFO."""
        return _rule_of(self.rules, group)

    def lane_of(self, queue: str, group: str) -> Lane:
        """The lane that carries the jobs of ``group`` in ``queue``, without persistence."""
        rule = self.rule_of(group)
        if rule.partitions is None:
            return Lane(queue, group, seats=rule.concurrency, weight=rule.weight)
        # Not hash(): every process has to come to the same partition.
        number = crc32(group.encode("utf-8", "surrogatepass")) % rule.partitions
        return Lane(queue, rule.match, partition=(number, rule.partitions), weight=rule.weight)


@lru_cache(RULES_REMEMBERED)
def _rule_of(rules: tuple[GroupRule, ...], group: str) -> GroupRule:
    return next((rule for rule in rules if fnmatchcase(group, rule.match)), _DEFAULT)


def check_group(group: object) -> str:
    """``group``, if it is the name of one.

    Raises:
      ValueError: says what is allowed.
    """
    if not isinstance(group, str) or not 1 <= len(group) <= MAX_GROUP or "\0" in group:
        shown = f"one of {len(group)}" if isinstance(group, str) and len(group) > MAX_GROUP else repr(group)
        raise ValueError(f"must be a text of 1 to {MAX_GROUP} characters without NUL, or None, not {shown}")
    try:
        group.encode()
    except UnicodeEncodeError:
        raise ValueError(f"must be text that UTF-8 can encode, not {group!r}") from None
    return group


def check_position(position: object) -> int:
    """``position``, if it is the number of a job in its group.

    Raises:
      ValueError: says what is allowed.
    """
    if isinstance(position, bool) or not isinstance(position, int) or not 1 <= position <= MAX_POSITION:
        raise ValueError(f"must be a whole number from 1 to {MAX_POSITION}, not {position!r}")
    return position


def check_rules(rules: Sequence[GroupRule]) -> None:
    """Check what each rule's values cannot say by themselves.

    Raises:
      ValueError: a rule contradicts itself, or is never reached; it is named by `rule_name`.
    """
    for number, rule in enumerate(rules):
        name = rule_name(number, rule.match)
        if rule.partitions is not None and rule.concurrency != 1:
            raise ValueError(f"{name}: partitions carry groups of concurrency 1, not {rule.concurrency}; remove one")
        if rule.on_gap is OnGap.PAUSE and rule.gap_timeout is None:
            raise ValueError(f"{name}: on_gap: pause needs a gap_timeout, such as 1h; without it a gap waits for ever")
        for earlier, other in enumerate(rules[:number]):
            if other.match in ("*", rule.match):
                raise ValueError(f"{name} is never reached: {rule_name(earlier, other.match)} comes first")


def rule_name(number: int, match: str) -> str:
    """How an error names a rule: by its place in the list, from 0, and what it matches."""
    return f"rules[{number}] ({match})"
