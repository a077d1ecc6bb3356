"""`python -m benchmarks`: measures rows of the table and prints it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .alone import alone
from .machine import StolenTime, facts
from .private_servers import servers
from .report import render
from .row import chosen
from .run import measure_rounds
from .table_rows import ROWS


def main(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[ROW]...", help="For example `groups send-each`.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the table shows medians.")] = 3,
    scale: Annotated[float, typer.Option(min=0.001, help="Factor for the number of jobs.")] = 1.0,
    patience: Annotated[float, typer.Option(help="Seconds to wait for a quiet machine, each time.")] = 20.0,
    markdown: Annotated[Path | None, typer.Option(help="Write the report to this file too.")] = None,
) -> None:
    """Run peers and jq_actors side by side on this machine and print the table of docs/benchmarks.md.

    ROW is the name of a row, or its first part: `send` means all rows about sending. Default: all rows.
    """
    try:
        rows = chosen(ROWS, words or ())
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    stolen = StolenTime()
    with alone(), servers(patience) as settings:
        results = measure_rounds(rows, rounds, scale, settings)
        about = {
            **facts(settings),
            "taken by other machines": f"{stolen.share():.1%} of processor time during the run",
            "rounds": f"median of {rounds}; in brackets the smallest and the largest",
            "jobs": f"{scale:g} times the number in the titles",
        }
    report = render(rows, results, about)
    print(report)
    if markdown:
        markdown.write_text(report)


if __name__ == "__main__":
    typer.run(main)
