"""The program `jq-actors`: its commands, and how an error is told."""

from __future__ import annotations

import logging
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from jq_actors.errors import JobQueueError

from . import check, db, groups, jobs, worker
from .output import exit_code_of, print_error


class _Commands(TyperGroup):
    """The commands; an error of ours ends them with one sentence on stderr instead of a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except JobQueueError as error:
            print_error(str(error))
            raise typer.Exit(exit_code_of(error)) from None


app = typer.Typer(
    name="jq-actors",
    cls=_Commands,
    help="The job queue for Python teams on RabbitMQ.",
    epilog="Exit codes: 0 success; 1 a problem was found or a thing is not there; 2 wrong command line or"
    " configuration; 3 broker or database cannot be reached. Those of `worker` are in its own help.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # an error is a line that can be searched for, not a box that wraps it
)
app.command("worker", epilog=worker.EPILOG)(worker.worker)
app.command("check", epilog=check.EPILOG)(check.check)
app.add_typer(db.app, name="db")
app.add_typer(jobs.app, name="jobs")
app.add_typer(groups.app, name="groups")


@app.command(
    epilog="Exit codes: 0 it ran to its end; 1 it cannot run here; 130 interrupted: run it again and it continues."
)
def demo(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FOLDER", help="Documents to index. Default: this project and the installed packages."),
    ] = None,
    home: Annotated[Path, typer.Option(metavar="DIR", help="Where index and log go.")] = Path(".demo"),
) -> None:
    """Index real documents in one process: the library of `examples/`, embedded, with progress and a summary."""
    from .demo import run_demo  # here: no other command needs what it imports

    raise typer.Exit(run_demo(folders or [], home))


def main() -> None:
    """Run the command line of this process, and exit."""
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"jq_actors {version('jq-actors')}, dramatiq {version('dramatiq')}")
        raise typer.Exit


@app.callback()
def _options(
    ctx: typer.Context,
    _version: Annotated[
        bool,
        typer.Option("--version", help="Print the versions and end.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """The job queue for Python teams on RabbitMQ."""
    if ctx.invoked_subcommand in ("check", "db", "jobs", "groups"):
        # Their errors are told once, by themselves; Python prints warnings of a logger that has no handler.
        logging.getLogger("jq_actors").addHandler(logging.NullHandler())
