"""What most commands need first: the configuration, the modules with actors, and a broker that is closed at the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from jq_actors.config.loading import CONFIG_VARIABLE
from jq_actors.process.installed import installed_broker

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="PATH",
        help="Configuration file. Default: $JQ_CONFIG, config/jq_actors.yaml, jq_actors.yaml, else built-in.",
    ),
]
ModulesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="MODULE", help="Modules with actors, in addition to `imports`.")
]
PathOption = Annotated[
    list[str] | None,
    typer.Option("--path", "-P", metavar="DIR", help="Where to look for modules. Default: the working directory."),
]


def use_config(path: Path | None) -> None:
    """Make ``path`` the configuration of this process and of its child processes, which read the same variable."""
    if path is not None:
        os.environ[CONFIG_VARIABLE] = str(path.absolute())


def find_modules_in(paths: Sequence[str]) -> None:
    """Let modules be imported from ``paths``, as Dramatiq's ``--path`` does."""
    for path in paths:
        sys.path.insert(0, path)


@contextmanager
def store_commands(config_path: Path | None) -> Iterator[None]:
    """Run calls of `jq_actors.jobs` in this block, and close the broker at its end.

    Raises:
      typer.BadParameter: a call raised ``ValueError``; it got the value from the command line.
    """
    use_config(config_path)
    try:
        yield
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    finally:
        installed_broker().close()
