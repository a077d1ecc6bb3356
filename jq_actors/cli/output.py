"""What people read: errors on stderr with their exit codes, tables on stdout."""

from __future__ import annotations

from collections.abc import Sequence

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jq_actors.errors import ConfigError, JobQueueError, StoreUnavailableError, TransportError
from jq_actors.events import escape

OK = 0
PROBLEM = 1
"""A problem was found, or what was asked for is not there."""
USAGE = 2
"""Wrong command line or configuration. Dramatiq's code for a failed import, too."""
UNREACHABLE = 3
"""Broker or database cannot be reached. Dramatiq's code for it, too."""


def exit_code_of(error: JobQueueError) -> int:
    """The exit code that tells ``error``."""
    match error:
        case ConfigError():
            return USAGE
        case TransportError() | StoreUnavailableError():
            return UNREACHABLE
    return PROBLEM


def print_error(sentence: str, label: str = "error") -> None:
    """Tell an error on stderr. Line breaks stay: a `ConfigError` has one line for each problem."""
    for number, line in enumerate(sentence.split("\n")):
        typer.echo(escape(line) if number else f"{label}: {escape(line)}", err=True)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows below their headings; control characters are escaped, ``None`` is shown as ``-``.

    A terminal folds long cells; into a pipe each row is one line.
    """
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        # Text, not str: a value must not be read as markup.
        table.add_row(*(Text("-" if cell is None else escape(str(cell)), overflow="fold") for cell in row))
    console = Console()
    if console.is_terminal:
        console.print(table)
        return
    console = Console(width=_UNFOLDED)
    with console.capture() as printed:
        console.print(table)
    typer.echo("\n".join(line.rstrip() for line in printed.get().splitlines()))


_UNFOLDED = 100_000
