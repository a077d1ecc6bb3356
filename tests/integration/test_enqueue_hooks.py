"""What a hook writes into a command reaches the wire, and counts for the size."""

from __future__ import annotations

from typing import Any

import dramatiq
import pytest

from jq_actors import actor
from jq_actors.errors import CommandTooLargeError
from tests.support.application import Application


class Stamps(dramatiq.Middleware):
    def __init__(self, size: int) -> None:
        self._size = size

    def before_enqueue(self, broker: dramatiq.Broker, message: Any, delay: Any) -> None:
        message.options["stamp"] = "x" * self._size


def test_what_a_hook_adds_travels(app: Application) -> None:
    app.broker.add_middleware(Stamps(10))
    seen: list[Any] = []

    class Reads(dramatiq.Middleware):
        def before_process_message(self, broker: dramatiq.Broker, message: Any) -> None:
            seen.append(message.options["stamp"])

    app.broker.add_middleware(Reads())

    @actor
    async def note() -> None: ...

    with app.worker():
        note.send()
        app.wait(lambda: seen, "the job")

    assert seen == ["x" * 10]


def test_what_a_hook_adds_counts_for_the_size(embedded_app: Application) -> None:
    embedded_app.broker.add_middleware(Stamps(2 << 20))

    @actor
    async def note() -> None: ...

    with pytest.raises(CommandTooLargeError):
        note.send()
