"""Tables of earlier revisions, and the rows that earlier releases left in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext

from jq_actors.model.job import JobId
from jq_actors.store.schema import migrate

from .stores import TABLE, World, clock, job_ids

Values = dict[str, Any]


def upgrade_to(url: str, revision: str) -> None:
    """Bring an empty database to ``revision``, as a release that knew no later one did. Blocks."""
    directory = migrate._Scripts()._directory
    path = url.replace("+aiosqlite", "").replace("+asyncpg", "+psycopg")
    engine = sa.create_engine(path, poolclass=sa.NullPool)
    with engine.begin() as connection:
        context = EnvironmentContext(Config(), directory, fn=lambda at, _: directory._upgrade_revs(revision, at))
        context.configure(connection=connection, version_table=f"{TABLE}_version", jobs_table=TABLE)
        with context, context.begin_transaction():
            context.run_migrations()


async def old_jobs(world: World, each: Sequence[Values], **of_all: Any) -> list[JobId]:
    """Rows of jobs, in this order: ``each`` is what sets one apart from the others. They have no column of today's."""
    ids, now = job_ids(len(each)), clock.wall()
    row: Values = {"actor": "send_mail", "queue": "mail", "priority": 0, "dispatch": 1, "redispatches": 0, "tags": []}
    row |= {"attempt": 0, "crashes": 0, "due_at": now, "enqueued_at": now, "group_key": None, "position": None}
    row |= {"final_state": None, "order_key": None, "published_at": None, "publish_at": None, "wake_at": None}
    row |= {"parked_at": None, "lane_owner": None, "worker_id": None, "run_token": None, "started_at": None}
    row |= {"finished_at": None, "reason": None} | of_all
    rows = [{**row, **values, "id": job_id} for job_id, values in zip(ids, each, strict=True)]
    for values in rows:
        if values["order_key"] is None:
            values["order_key"] = values["position"]
    await world.execute(sa.insert(world.tables.jobs).values(rows))
    body = '{"args":[],"kwargs":{}}'
    await world.execute(sa.insert(world.tables.payloads).values([{"job_id": i, "body": body} for i in ids]))
    return ids


async def old_group(world: World, name: str, **values: Any) -> None:
    """The row of a group, as revision 0002 has it."""
    kinds = {column.name: column.type for column in world.tables.groups.columns}
    columns = ("name", "paused_at", "paused_reason", "next_position", "moved_at")
    groups = sa.table(world.tables.groups.name, *(sa.column(column, kinds[column]) for column in columns))
    await world.execute(sa.insert(groups).values(name=name, moved_at=clock.wall(), **values))
