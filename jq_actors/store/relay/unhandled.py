"""Jobs that no worker could run: set aside with a reason, and offered again to workers that may know them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.model.job import JobId, JobState, is_job_id
from jq_actors.model.turn_rules import BEHIND
from jq_actors.store.database.database import Database
from jq_actors.store.database.dialect import encode_column
from jq_actors.store.groups.rows import GroupRows
from jq_actors.store.groups.turns import GroupTurns, waiting
from jq_actors.store.rows.dispatches import queued_anew
from jq_actors.store.tables import JOB_ID, MAX_REASON, Tables, storable


class UnhandledJobs:
    """Changes the rows of jobs that nobody could run."""

    def __init__(self, database: Database, tables: Tables, rows: GroupRows, turns: GroupTurns) -> None:
        self._database, self._rows, self._turns = database, rows, turns
        jobs = tables.jobs
        c = jobs.c
        actors, ids = database.dialect.rows({"actor": c.actor.type}).c, database.dialect.rows({"id": JOB_ID}).c
        is_unhandled = (c.state == JobState.UNHANDLED.value, c.final_state.is_(None))
        self._find = sa.select(c.id, c.group_key, c.has_place).where(
            *is_unhandled,
            c.actor.in_(sa.select(actors.actor)),
            sa.func.coalesce(c.reason, "").startswith(sa.bindparam("reason_begins", type_=sa.Text)),
        )
        this = sa.update(jobs).where(c.id == ids.id, *is_unhandled)
        self._queue = this.values(queued_anew(jobs)).returning(c.id)
        self._let_wait = this.values(waiting(BEHIND)).returning(c.id)
        one = c.id == sa.bindparam("job_id", type_=JOB_ID)
        self._exists = sa.select(sa.exists().where(one))
        self._set_aside = (
            sa.update(jobs)
            .where(one, c.dispatch == sa.bindparam("of_dispatch"), c.state == JobState.QUEUED.value)
            .values(state=JobState.UNHANDLED.value, reason=sa.bindparam("why"), publish_at=None, lane_owner=None)
        )

    async def offer(self, actors: Sequence[str], reason_begins: str, now: datetime) -> list[JobId]:
        """Queue unhandled jobs of these actors again. In a group they keep their places, or wait if those are taken."""
        batch = encode_column("actor", actors)
        parameters = {"batch": batch, "reason_begins": reason_begins}

        async def offer(connection: AsyncConnection) -> list[JobId]:
            rows = (await connection.execute(self._find, parameters)).all()
            groups = await self._rows.lock(connection, {row.group_key for row in rows} - {None}, now)
            if len(groups.rows):
                rows = (await connection.execute(self._find, parameters)).all()
                rows = [row for row in rows if row.group_key is None or row.group_key in groups]
            going = [r for r in rows if r.group_key is None or (r.has_place and groups[r.group_key].paused is None)]
            stopping = [row for row in rows if row not in going]
            offered = await self._change(connection, self._queue, [row.id for row in going], now)
            waiting_now = await self._change(connection, self._let_wait, [row.id for row in stopping], now)
            for row in stopping:
                if row.id in waiting_now:
                    groups.add(row.group_key, held=-int(bool(row.has_place)), waiting=1)
            await self._turns.give(connection, groups, now)
            return offered + waiting_now

        return await self._database.write(offer)

    async def set_aside(self, job_id: JobId, dispatch: int, reason: str) -> bool:
        """Mark a job as unhandled that cannot be decoded. In a group it keeps its place, and blocks the group."""
        if not is_job_id(job_id):
            return False
        parameters = {"job_id": job_id, "of_dispatch": dispatch, "why": storable(reason, MAX_REASON)}

        async def set_aside(connection: AsyncConnection) -> bool:
            await connection.execute(self._set_aside, parameters)
            return bool(await connection.scalar(self._exists, {"job_id": job_id}))

        return await self._database.write(set_aside)

    async def _change(
        self, connection: AsyncConnection, statement: sa.UpdateBase, job_ids: Sequence[str], now: datetime
    ) -> list[JobId]:
        if not job_ids:
            return []
        batch = encode_column("id", job_ids)
        return [JobId(i) for i in (await connection.execute(statement, {"batch": batch, "now": now})).scalars()]
