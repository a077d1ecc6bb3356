"""A row of the table: one of our numbers, a peer's for comparison, and the target."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .result import Metric, Results, middle, ratio
from .subject import Subject


@dataclass(frozen=True)
class Target:
    """A limit for the ratio to the peer, or for our number itself."""

    limit: float
    of_ratio: bool
    at_most: bool = False

    def shown(self, metric: Metric) -> str:
        """The target as text, such as ``≥ 4 ×``; ``metric`` is the metric of our number."""
        unit = " ×" if self.of_ratio else metric.unit
        return f"{'≤' if self.at_most else '≥'} {self.limit:,g}{unit}"

    def is_met_by(self, measured: float) -> bool:
        """Whether ``measured`` meets the target."""
        return measured <= self.limit if self.at_most else measured >= self.limit


def times(limit: float) -> Target:
    """The ratio to the peer must be at least this."""
    return Target(limit, of_ratio=True)


def at_least(limit: float) -> Target:
    """Our number must be at least this."""
    return Target(limit, of_ratio=False)


def at_most(limit: float) -> Target:
    """Our number must be at most this."""
    return Target(limit, of_ratio=False, at_most=True)


@dataclass(frozen=True)
class Row:
    """One line of the table. Rows of one name compare the same number with several peers."""

    name: str
    """The name that `chosen` finds the row by."""
    title: str
    ours: Subject
    peer: Subject | None = None
    target: Target | None = None
    metric: Metric = Metric.RATE

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """The subjects that must be measured for the row."""
        return (self.ours,) if self.peer is None else (self.peer, self.ours)

    def value(self, subject: Subject, results: Results) -> float | None:
        """The median of one of the subjects; None if it was not measured."""
        return middle(results.get(subject.title, ()), self.metric)

    def ratio(self, results: Results) -> float | None:
        """Our number divided by the peer's; None without a peer, or if either was not measured."""
        if self.peer is None:
            return None
        return ratio(results.get(self.ours.title, ()), results.get(self.peer.title, ()), self.metric)

    def is_met(self, results: Results) -> bool | None:
        """Whether the target is met; None without a target, or if its number was not measured."""
        if self.target is None:
            return None
        measured = self.ratio(results) if self.target.of_ratio else self.value(self.ours, results)
        return None if measured is None else self.target.is_met_by(measured)


def chosen(rows: Sequence[Row], words: Iterable[str]) -> list[Row]:
    """The rows that ``words`` name, or all rows: ``send`` means each row whose name is ``send`` or begins with it.

    Raises:
      ValueError: a word names no row; tells the names.
    """
    wanted = list(words)
    for word in wanted:
        if not any(_is_named(row, word) for row in rows):
            names = ", ".join(dict.fromkeys(row.name for row in rows))
            raise ValueError(f"No row is named {word!r}; there are {names}, and their first parts.")
    return [row for row in rows if not wanted or any(_is_named(row, word) for word in wanted)]


def _is_named(row: Row, word: str) -> bool:
    return f"{row.name}-".startswith(f"{word}-")
