"""What becomes of rows that were to be published: they are marked, released or backed off."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.model.job import JobState
from jq_actors.store.database.database import Database
from jq_actors.store.database.dialect import encode_rows
from jq_actors.store.relay.publish_leases import Key, PublishLeases
from jq_actors.store.tables import JOB_ID, Tables, UtcDateTime

FIRST_PAUSE = timedelta(seconds=1)
"""The first pause, in seconds, of a dispatch that the broker refused."""
MAX_DOUBLINGS = 6
"""So the longest pause is about a minute."""

Mark = tuple[Sequence[Key], bool]
"""Dispatches that were published, and whether into the memory of this process."""

_NOW = sa.bindparam("now", type_=UtcDateTime)


class PublishMarks:
    """Records what became of dispatches; only of those that this process has leased."""

    def __init__(self, database: Database, tables: Tables, leases: PublishLeases) -> None:
        self._database, self._leases = database, leases
        c = tables.jobs.c
        b = database.dialect.rows({"id": JOB_ID, "dispatch": sa.Integer(), "lease": UtcDateTime()}).c
        this = sa.update(tables.jobs).where(c.id == b.id, c.dispatch == b.dispatch)
        leased = this.where(_on_the_row(c.publish_at == b.lease))
        self._mark = leased.values(published_at=_NOW, publish_at=None)
        self._release = leased.where(c.state == JobState.QUEUED.value).values(publish_at=c.due_at)
        refused = {"publish_at": _refused_until(c.redispatches), "redispatches": c.redispatches + 1}
        self._refuse = leased.where(c.state == JobState.QUEUED.value).values(refused)
        unfinished = _on_the_row(c.final_state.is_(None))
        self._own = this.where(unfinished).values(lane_owner=sa.bindparam("me", type_=sa.Text))

    async def published(self, marks: Sequence[Mark], me: str | None, now: datetime) -> None:
        """The dispatches of ``marks`` are at the broker, or in the memory of this worker (``me``)."""
        ended = self._ended([key for keys, _ in marks for key in keys])
        here = encode_rows([_row(key) for keys, in_memory in marks if in_memory for key in keys])

        async def mark(connection: AsyncConnection) -> None:
            await connection.execute(self._mark, {"batch": ended, "now": now})
            if me is not None:
                # Also those that run already: interrupted, they go back into that memory.
                await connection.execute(self._own, {"batch": here, "me": me})

        await self._database.write(mark)

    async def released(self, keys: Sequence[Key]) -> None:
        """Release dispatches that were not published: anybody may publish them, in their old place."""
        batch = {"batch": self._ended(keys)}
        await self._database.write(lambda c: c.execute(self._release, batch))

    async def refused(self, keys: Sequence[Key], now: datetime) -> None:
        """Back off dispatches that the broker refused: publish them after a pause that doubles, behind all others."""
        pauses = {f"pause_{n}": now + FIRST_PAUSE * 2**n for n in range(MAX_DOUBLINGS + 1)}
        parameters = {"batch": self._ended(keys), **pauses}
        await self._database.write(lambda c: c.execute(self._refuse, parameters))

    def _ended(self, keys: Sequence[Key]) -> str:
        return encode_rows([_row(key) | {"lease": until} for key, until in self._leases.ended(keys)])


def _row(key: Key) -> dict[str, Any]:
    return {"id": key[0], "dispatch": key[1]}


def _refused_until(redispatches: sa.ColumnElement[int]) -> sa.ColumnElement[datetime]:
    pauses = [sa.bindparam(f"pause_{n}", type_=UtcDateTime) for n in range(MAX_DOUBLINGS + 1)]
    return sa.case(*((redispatches == n, pauses[n]) for n in range(MAX_DOUBLINGS)), else_=pauses[MAX_DOUBLINGS])


def _on_the_row(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    # Hidden from the planner: while its statistics say that few rows meet the condition, it would read all of them by
    # a partial index, even a backlog of a million, instead of reading the batch by its ids.
    return sa.case((condition, 1), else_=0) == 1
