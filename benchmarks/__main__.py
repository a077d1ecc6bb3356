"""`python -m benchmarks`: run the scenarios, print the report."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from .alone import alone
from .environment import make_peers_environment
from .machine import StolenTime, facts
from .measure import MeasurementError
from .report import Results, render
from .result import Measurement
from .scenarios import SCENARIOS, Row, Scenario
from .settings import Settings


def main(
    scenario: Annotated[list[str] | None, typer.Option(help="Only this scenario; may be repeated.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only rows with this in their title; may be repeated.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the table shows medians.")] = 3,
    scale: Annotated[float, typer.Option(min=0.001, help="Times the number of jobs.")] = 1.0,
    patience: Annotated[float, typer.Option(help="Seconds to wait for a quiet machine, each time.")] = 20.0,
    markdown: Annotated[Path | None, typer.Option(help="Write the report to this file too.")] = None,
) -> None:
    """Run peers and jq_actors side by side on this machine and print tables, ratios and targets."""
    settings = Settings(patience=patience)
    chosen = [one for one in SCENARIOS if not scenario or one.name in scenario]
    stolen = StolenTime()
    with alone():
        make_peers_environment(settings.peers_python)
        results = _measure_rounds(chosen, only or [""], rounds, scale, settings)
    machine = {
        **facts(settings),
        "taken by other machines": f"{stolen.share():.1%} of processor time during the run",
    }
    report = render(chosen, results, machine, rounds)
    print(report)
    if markdown:
        markdown.write_text(report)


def _measure_rounds(
    scenarios: Sequence[Scenario], only: Sequence[str], rounds: int, scale: float, settings: Settings
) -> Results:
    results: dict[str, dict[str, list[Measurement]]] = defaultdict(lambda: defaultdict(list))
    plan = [(one, row) for one in scenarios for row in one.rows if any(part in row.title for part in only)]
    for number in range(1, rounds + 1):
        for scenario, row in plan:
            _say(f"round {number} of {rounds} · {scenario.title} · {row.title}: ", end="")
            measured = _measure(scenario, row, scale, settings)
            _say(", ".join(f"{value:,.1f} {name}" for name, value in measured.numbers.items()) + measured.note)
            results[scenario.name][row.title].append(measured)
    return results


def _measure(scenario: Scenario, row: Row, scale: float, settings: Settings) -> Measurement:
    """A contestant that fails costs the run its own numbers, not those of the others."""
    try:
        return scenario.measure(row, scale, settings)
    except MeasurementError as error:
        return Measurement({}, f"failed: {error}")


def _say(text: str, end: str = "\n") -> None:
    print(text, end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    typer.run(main)
