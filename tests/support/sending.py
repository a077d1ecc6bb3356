"""A real `JobBroker` whose last step is a list: what actors send, without a runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jq_actors.model.command import JobCommand
from jq_actors.process.broker import JobBroker
from tests.support.clock import FakeClock

DRAMATIQ = [f"dramatiq.middleware:{name}" for name in ("Retries", "TimeLimit", "Callbacks", "Pipelines")]


class RecordingBroker(JobBroker):
    """Records in ``sent`` the commands that are sent, batch by batch."""

    def __init__(self, middleware: Sequence[str | dict[str, Any]] = DRAMATIQ, **broker: Any) -> None:
        layers = [{layer: {}} if isinstance(layer, str) else layer for layer in middleware]
        settings = {"priority_queues": ["default", "mail", "math"], **broker}
        super().__init__({"broker": settings, "middleware": layers}, clock=FakeClock())
        self.sent: list[list[JobCommand[Any]]] = []

    def send(self, commands: Sequence[JobCommand[Any]]) -> None:
        self.sent.append(list(commands))

    async def send_async(self, commands: Sequence[JobCommand[Any]]) -> None:
        self.sent.append(list(commands))
