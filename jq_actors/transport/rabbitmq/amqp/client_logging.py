"""Drops the log lines that aio-pika and aiormq write about our connections.

Events report the same, and not once for each attempt (A41).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context

_LOGGERS = (
    "aiormq.connection",
    "aiormq.channel",
    "aio_pika.connection",
    "aio_pika.channel",
    "aio_pika.exchange",
    "aio_pika.queue",
    "aio_pika.tools",
)

_is_ours: ContextVar[bool] = ContextVar("jq_actors_amqp", default=False)


@contextmanager
def quietly() -> Iterator[None]:
    """Drop what the client libraries log inside, and what they log later in tasks that they start inside.

    Other users of these libraries in this process keep their log.
    """
    token = _is_ours.set(True)
    try:
        yield
    finally:
        _is_ours.reset(token)


def aloud() -> Context:
    """A copy of the current context in which nothing is dropped, for calls into code that is not ours."""
    context = copy_context()
    context.run(_is_ours.set, False)
    return context


class _NotOurs(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not _is_ours.get()


# A filter works only on the very logger that makes the record, so each of them needs one.
for _name in _LOGGERS:
    logging.getLogger(_name).addFilter(_NotOurs())
