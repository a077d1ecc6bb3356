"""How a command comes to the rows: with its configuration, and with the broker closed at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from jq_actors.process.installed import installed_broker

from .configured import use_config


@contextmanager
def asking(config_path: Path | None) -> Iterator[None]:
    """What `jobs` is asked in here. A value that it does not take is a wrong command line."""
    use_config(config_path)
    try:
        yield
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    finally:
        installed_broker().close()
