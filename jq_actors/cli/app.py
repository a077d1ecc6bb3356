"""The program `jq-actors`: its commands, and how they report errors."""

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
    """The commands. A `JobQueueError` ends one with a sentence on stderr instead of a traceback."""

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
    epilog="Exit codes: 0 success; 1 a problem was found, or what was asked for does not exist; 2 wrong command line"
    " or configuration; 3 broker or database cannot be reached. `worker` lists its own in its help.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # an error must be a line that can be searched for, not text wrapped in a box
)
app.command("worker", epilog=worker.EPILOG)(worker.worker)
app.command("check", epilog=check.EPILOG)(check.check)
app.add_typer(db.app, name="db")
app.add_typer(jobs.app, name="jobs")
app.add_typer(groups.app, name="groups")


@app.command(epilog="Exit codes: 0 finished; 1 it cannot run here; 130 interrupted: run it again to continue.")
def demo(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FOLDER", help="Folders to index. Default: this project, its installed packages, /usr/share/doc."
        ),
    ] = None,
    home: Annotated[Path, typer.Option(metavar="DIR", help="Where to put database, index and log.")] = Path(".demo"),
) -> None:
    """Index real documents in one process, with `examples/library` and the embedded broker; show a summary."""
    from .demo import run_demo  # imported here, since no other command needs what it imports

    raise typer.Exit(run_demo(folders or [], home))


def main() -> None:
    """Run the command that this process's arguments name, and exit with its code."""
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
        typer.Option("--version", help="Print the versions and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """The job queue for Python teams on RabbitMQ."""
    if ctx.invoked_subcommand in ("check", "db", "jobs", "groups"):
        # These commands report each error themselves. Without a handler, Python would print log warnings as well.
        logging.getLogger("jq_actors").addHandler(logging.NullHandler())
