"""What people read: errors on stderr with their exit codes, tables on stdout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jq_actors.errors import ConfigError, JobQueueError, StoreUnavailableError, TransportError
from jq_actors.model.group import Group
from jq_actors.model.job import Job
from jq_actors.model.printable import escape

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
"""The ``--json`` option."""

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


def print_json(value: object) -> None:
    """Print ``value`` for programs."""
    # ASCII only: JSON alone would let U+0085 or an ESC-like C1 character through to the terminal.
    typer.echo(json.dumps(value, indent=2))


def as_plain(value: Job | Group) -> dict[str, Any]:
    """The fields of ``value`` as JSON has them: times in ISO 8601, durations in seconds."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(value), default=_plain))
    return plain


def as_cell(value: object) -> object:
    """A field of `as_plain` as a table shows it."""
    return value if value is None or isinstance(value, str | int | float) else json.dumps(value)


def as_time(moment: datetime) -> str:
    """``moment`` as a table shows it."""
    return moment.isoformat(" ", "seconds")


def _plain(value: object) -> str | float:
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value.isoformat() if isinstance(value, datetime) else str(value)


_UNFOLDED = 100_000
