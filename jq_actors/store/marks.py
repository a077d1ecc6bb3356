"""What becomes of rows that were to be published: marked, released; and unhandled ones, offered anew."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.job import JobId, JobState

from .database import Database
from .dialect import encode_rows
from .tables import JOB_ID, Tables, UtcDateTime

Mark = tuple[Sequence[tuple[JobId, int]], bool]
"""Dispatches that were published, and whether into the memory of this process."""

_NOW = sa.bindparam("now", type_=UtcDateTime)


class Marks:
    """Says of dispatches what became of them."""

    def __init__(self, database: Database, tables: Tables) -> None:
        self._database = database
        c = tables.jobs.c
        b = database.dialect.rows({"id": JOB_ID, "dispatch": sa.Integer()}).c
        this = sa.update(tables.jobs).where(c.id == b.id, c.dispatch == b.dispatch)
        marked = this.values(published_at=_NOW, publish_at=None)
        self._mark = marked.where(_is_set(c.publish_at))
        self._own = this.values(lane_owner=sa.bindparam("me", type_=sa.Text)).where(~_is_set(c.final_state))
        self._release = this.values(publish_at=c.due_at).where(_is_set(c.publish_at), c.state == JobState.QUEUED.value)
        actors = database.dialect.rows({"actor": tables.jobs.c.actor.type}).c
        self._offer = (
            sa.update(tables.jobs)
            .where(
                c.actor == actors.actor,
                c.state == JobState.UNHANDLED.value,
                c.final_state.is_(None),
            )
            .values(
                state=JobState.QUEUED.value,
                dispatch=c.dispatch + 1,
                published_at=None,
                publish_at=_NOW,
                lane_owner=None,
                redispatches=0,
                reason=None,
            )
            .returning(c.id)
        )

    async def published(
        self, connection: AsyncConnection, marks: Sequence[Mark], me: str | None, now: datetime
    ) -> None:
        """The dispatches of ``marks`` are at the broker, or in the memory of this worker (``me``)."""
        everywhere = [dispatch for dispatches, _ in marks for dispatch in dispatches]
        await connection.execute(self._mark, {"batch": _batch(everywhere), "now": now})
        here = [dispatch for dispatches, in_memory in marks if in_memory for dispatch in dispatches]
        if here:
            # Also those that run already: interrupted, they go back into that memory.
            await connection.execute(self._own, {"batch": _batch(here), "me": me})

    async def released(self, dispatches: Sequence[tuple[JobId, int]]) -> None:
        """These were not published: anybody may publish them, in their old place."""
        batch = {"batch": _batch(dispatches)}
        await self._database.write(lambda c: c.execute(self._release, batch))

    async def offered(self, actors: Sequence[str], now: datetime) -> list[JobId]:
        """Unhandled rows of ``actors`` are queued again; returns their ids."""
        parameters = {"batch": encode_rows([{"actor": actor} for actor in actors]), "now": now}

        async def offer(connection: AsyncConnection) -> list[JobId]:
            return list((await connection.execute(self._offer, parameters)).scalars())

        return await self._database.write(offer)


def _is_set(column: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    # Not IS NOT NULL: as long as its statistics say that there are few such rows, PostgreSQL would find them all by
    # their partial index, a backlog of a million too, instead of those of the batch by their ids.
    return sa.case((column.is_not(None), 1), else_=0) == 1


def _batch(dispatches: Sequence[tuple[JobId, int]]) -> str:
    return encode_rows([{"id": job_id, "dispatch": dispatch} for job_id, dispatch in dispatches])
