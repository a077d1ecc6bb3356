"""aiormq's log lines about connections of ours are left out: events tell the same, and not once for each try
(A41)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context

_is_ours: ContextVar[bool] = ContextVar("jq_actors_amqp", default=False)


@contextmanager
def quietly() -> Iterator[None]:
    """What aiormq logs in here is dropped, and what it logs later in tasks that it makes in here.

    Other users of aiormq in this process keep their log.
    """
    token = _is_ours.set(True)
    try:
        yield
    finally:
        _is_ours.reset(token)


def aloud() -> Context:
    """A copy of the current context for code that is not ours, when the current one may be inside `quietly`."""
    context = copy_context()
    context.run(_is_ours.set, False)
    return context


class _NotOurs(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not _is_ours.get()


# A filter works only on the very logger that makes the record, so each of them needs it.
for _name in ("aiormq.connection", "aiormq.channel"):
    logging.getLogger(_name).addFilter(_NotOurs())
