"""The report, as Markdown: one table a scenario, the targets, the machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from .result import Metric, Rounds, middle, ratio, spread
from .scenarios import Scenario

Results = Mapping[str, Mapping[str, Rounds]]
"""Rounds by the row's title, by the scenario's name."""

NOTHING = "—"


def render(scenarios: Sequence[Scenario], results: Results, facts: Mapping[str, str], rounds: int) -> str:
    """The whole report."""
    parts = [line for scenario in scenarios for line in _scenario(scenario, results.get(scenario.name, {}))]
    parts += _targets(scenarios, results)
    parts += ["## Machine", "", *table(["fact", "value"], [[*fact] for fact in facts.items()]), ""]
    parts.append(f"Median of {rounds} rounds, contestants interleaved; in brackets the smallest and the largest.")
    return "\n".join(parts) + "\n"


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> Iterator[str]:
    """The lines of one table."""
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in body:
        # A note may hold the last lines of a log; a table's cell is one line.
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ⏎ ") for cell in row) + " |"


def _scenario(scenario: Scenario, rows: Mapping[str, Rounds]) -> Iterator[str]:
    head = ["", *scenario.metrics, *(f"× {base}" for base in scenario.bases), "note"]
    body = []
    for title in (row.title for row in scenario.rows if row.title in rows):
        numbers = [_number(rows[title], metric) for metric in scenario.metrics]
        ratios = [
            _times(ratio(rows[title], scenario.compared, rows.get(base, ()), scenario.compared))
            for base in scenario.bases
        ]
        notes = dict.fromkeys(measurement.note for measurement in rows[title] if measurement.note)
        body.append([title, *numbers, *ratios, "; ".join(notes)])
    yield from (f"## {scenario.title}", "", *table(head, body), "")


def _targets(scenarios: Sequence[Scenario], results: Results) -> Iterator[str]:
    body = []
    for scenario in scenarios:
        for target in scenario.targets:
            measured = target.measured(results.get(scenario.name, {}))
            if measured is None:
                body.append([target.text, NOTHING, "not measured"])
            else:
                shown = f"{measured:.2f}" + (" ×" if target.against else "")
                body.append([target.text, shown, "met" if target.is_met(measured) else "**not met**"])
    yield from ("## Targets", "", *table(["target", "measured", ""], body), "")


def _number(rounds: Rounds, metric: Metric) -> str:
    value, limits = middle(rounds, metric), spread(rounds, metric)
    if value is None or limits is None:
        return NOTHING
    digits = 1 if metric in (Metric.P50, Metric.P99) else 0
    return f"{value:,.{digits}f} [{limits[0]:,.{digits}f} … {limits[1]:,.{digits}f}]"


def _times(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"
