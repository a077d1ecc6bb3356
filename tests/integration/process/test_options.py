"""Options of a sending on their way: what hooks add, and priorities."""

from __future__ import annotations

from typing import Any

import dramatiq
import pytest

from jq_actors import actor
from jq_actors.errors import ActorOptionError, CommandTooLargeError, ConfigError
from tests.support.application import Application, Place, running


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


def test_a_priority_on_a_queue_without_priorities_is_refused_not_ignored(embedded_memory: Place) -> None:
    with running(embedded_memory.configuration) as app:

        @actor(priority=3)
        async def urgent() -> None: ...

        with pytest.raises(ConfigError, match=r"Actor 'urgent': priority 3 on queue 'default'.*priority_queues"):
            app.broker.resolve()


def test_a_priority_of_one_sending_is_refused_too(embedded_app: Application) -> None:
    @actor
    async def note() -> None: ...

    with pytest.raises(ActorOptionError, match=r"priority 5 on queue 'default'.*priority_queues"):
        note.send_with_options(priority=5)


def test_higher_priorities_run_first(rabbit_rows: Place) -> None:
    broker = {**rabbit_rows.configuration["broker"], "priority_queues": ["default"]}
    order: list[int] = []
    with running({**rabbit_rows.configuration, "broker": broker, "queues": {"default": {"concurrency": 1}}}) as app:

        @actor
        async def note(number: int) -> None:
            order.append(number)

        for priority in (0, 9, 5, 0, 9):
            note.send_with_options(args=(priority,), priority=priority)
        with app.worker():
            app.wait(lambda: len(order) == 5, "five jobs")

    assert order == [9, 9, 5, 0, 0]
