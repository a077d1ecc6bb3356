"""How commands print: results as tables or JSON on stdout, errors on stderr, and the exit code of each error."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Annotated, Any, TypeVar

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
"""A problem was found, or what was asked for does not exist."""
USAGE = 2
"""Wrong command line or configuration. Also Dramatiq's code for a failed import."""
UNREACHABLE = 3
"""Broker or database cannot be reached. Also Dramatiq's code for that."""

Found = TypeVar("Found", Job, Group)


def exit_code_of(error: JobQueueError) -> int:
    """The exit code for ``error``."""
    match error:
        case ConfigError():
            return USAGE
        case TransportError() | StoreUnavailableError():
            return UNREACHABLE
    return PROBLEM


def print_error(sentence: str, label: str = "error") -> None:
    """Print an error on stderr. Line breaks stay: a `ConfigError` has a line for each problem."""
    for number, line in enumerate(sentence.split("\n")):
        typer.echo(escape(line) if number else f"{label}: {escape(line)}", err=True)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows below their headings. Control characters are escaped, and ``None`` is shown as ``-``.

    On a terminal long cells are folded; in a pipe each row is one line.
    """
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        # Text rather than str, or rich would read markup in a value.
        table.add_row(*(Text("-" if cell is None else escape(str(cell)), overflow="fold") for cell in row))
    console = Console()
    if console.is_terminal:
        console.print(table)
        return
    console = Console(width=_UNFOLDED)
    with console.capture() as printed:
        console.print(table)
    typer.echo("\n".join(line.rstrip() for line in printed.get().splitlines()))


def print_fields(fields: Mapping[str, object]) -> None:
    """Print the fields of one `as_plain` value, one a row."""
    print_table(["field", "value"], [(name, _cell(value)) for name, value in fields.items()])


def print_page(
    name: str,
    found: Sequence[Found],
    cursor: str | None,
    columns: Sequence[str],
    row: Callable[[Found], Sequence[object]],
    *,
    as_json: bool,
) -> None:
    """Print one page of a list, as JSON or as a table, and how to get the next page.

    Parameters:
      name: the key of the list in JSON.
      found: the page.
      cursor: where the next page begins; ``None``: this is the last page.
      columns: headings of the table.
      row: makes a row of the table.
      as_json: whether to print JSON.
    """
    if as_json:
        print_json({name: [as_plain(one) for one in found], "cursor": cursor})
        return
    print_table(columns, [row(one) for one in found])
    if cursor is not None:
        print_error(f"There are more: --after {cursor}", label="note")


def print_json(value: object) -> None:
    """Print ``value`` as JSON, for programs."""
    # json.dumps escapes what is not ASCII. Otherwise U+0085 or another C1 control character would reach the terminal.
    typer.echo(json.dumps(value, indent=2))


def as_plain(value: Job | Group) -> dict[str, Any]:
    """The fields of ``value`` as JSON types: times as ISO 8601 text, durations in seconds."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(value), default=_plain))
    return plain


def as_time(moment: datetime) -> str:
    """``moment`` as a table shows it, to the second."""
    return moment.isoformat(" ", "seconds")


def _cell(value: object) -> object:
    return value if value is None or isinstance(value, str | int | float) else json.dumps(value)


def _plain(value: object) -> str | float:
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value.isoformat() if isinstance(value, datetime) else str(value)


_UNFOLDED = 100_000
