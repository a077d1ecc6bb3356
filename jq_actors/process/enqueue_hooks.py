"""Dramatiq's enqueue hooks of foreign middleware, around a sending, on the sender's own thread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import dramatiq

from jq_actors.model.command import JobCommand


@contextmanager
def enqueue_hooks(broker: dramatiq.Broker, commands: Sequence[JobCommand[Any]]) -> Iterator[None]:
    """Fire ``before_enqueue`` and, when the sending has succeeded, ``after_enqueue``; free where nobody listens."""
    hooked = commands if _somebody_listens(broker) else ()
    for command in hooked:
        broker.emit_before("enqueue", command, _delay(command))
    yield
    for command in hooked:
        broker.emit_after("enqueue", command, _delay(command))


def _somebody_listens(broker: dramatiq.Broker) -> bool:
    plain = dramatiq.Middleware
    return any(
        type(layer).before_enqueue is not plain.before_enqueue or type(layer).after_enqueue is not plain.after_enqueue
        for layer in broker.middleware
    )


def _delay(command: JobCommand[Any]) -> int | None:
    """Milliseconds, as Dramatiq gives it to the hooks."""
    if command.delay is not None:
        return int(command.delay / timedelta(milliseconds=1))
    due = command.due_at
    return None if due is None else max(int(due.timestamp() * 1000) - command.message_timestamp, 0)
