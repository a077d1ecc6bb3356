"""The ``--config`` option: one way to choose the configuration, for this process and those that it starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from jq_actors.config.loading import CONFIG_VARIABLE

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="PATH",
        help="Configuration file. Default: $JQ_CONFIG, config/jq_actors.yaml, jq_actors.yaml, else built-in.",
    ),
]
ModulesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="MODULE", help="Modules with actors, besides `imports`.")
]
PathOption = Annotated[
    list[str] | None,
    typer.Option("--path", "-P", metavar="DIR", help="Where modules are found. Default: here."),
]


def use_config(path: Path | None) -> None:
    """Make ``path`` the configuration of this process and of its children, which read the variable too."""
    if path is not None:
        os.environ[CONFIG_VARIABLE] = str(path.absolute())


def find_modules_in(paths: Sequence[str]) -> None:
    """Let modules be imported from ``paths``, as Dramatiq's ``--path`` does."""
    for path in paths:
        sys.path.insert(0, path)
