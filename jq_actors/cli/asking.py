"""How a command comes to the rows: with its configuration, and with the broker closed at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import typer

from jq_actors.events import OfferDeferred
from jq_actors.installed import installed_broker

from .configured import use_config
from .output import print_error


@contextmanager
def asking(config_path: Path | None) -> Iterator[None]:
    """What `jobs` is asked in here. A value that it does not take is a wrong command line.

    What is stored, and the broker does not know yet, is told on stderr.
    """
    use_config(config_path)
    broker = installed_broker()
    deferred: list[OfferDeferred] = []
    stop_listening = broker.events.subscribe(OfferDeferred, deferred.append)
    try:
        yield
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    finally:
        stop_listening()
        broker.close()
    for event in deferred:
        print_error(f"{event.text % asdict(event)}.", label="note")
