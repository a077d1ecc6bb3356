"""Groups are led by their rows: places instead of lanes.

Jobs of groups that were at the broker, in lanes, wait in their rows again: a relay finds groups that hold no place
although a job could start, and releases their first ones. What runs, blocks its group or waits for its retry keeps its
place.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

BIGINT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.TIMESTAMP(timezone=True).with_variant(sa.Text(), "sqlite")
LONG_AGO = "1970-01-01T00:00:00.000000+00:00"
"""A group that moved then is looked at first."""
_ZERO = sa.text("0")
_COLUMNS = (
    ("group_key", sa.Text()),
    ("state", sa.Text()),
    ("final_state", sa.Text()),
    ("due_at", TIME),
    ("parked_at", TIME),
    ("published_at", TIME),
    ("publish_at", TIME),
    ("wake_at", TIME),
    ("lane_owner", sa.Text()),
    ("position", BIGINT),
    ("has_place", sa.Boolean()),
)


def upgrade() -> None:
    """Change the tables."""
    name = op.get_context().opts["jobs_table"]
    op.add_column(name, sa.Column("has_place", sa.Boolean, nullable=False, server_default=sa.false()))
    _change_groups(f"{name}_groups")
    op.drop_index(f"{name}_parked", name)
    _let_them_wait(name)
    _count(name, f"{name}_groups")
    op.drop_index(f"{name}_published", name)
    condition = sa.text("final_state IS NULL AND published_at IS NOT NULL")
    op.create_index(
        f"{name}_published",
        name,
        ["queue", "published_at"],
        postgresql_where=condition,
        sqlite_where=condition,
    )


def _change_groups(name: str) -> None:
    for column in ("held", "waiting", "admitted"):
        op.add_column(name, sa.Column(column, sa.Integer, nullable=False, server_default=_ZERO))
    op.add_column(name, sa.Column("version", BIGINT, nullable=False, server_default=_ZERO))
    # A worker of the release before asks for it with each claim in a group: without it, it waits, and starts nothing.
    op.drop_column(name, "holders")


def _let_them_wait(name: str) -> None:
    jobs = sa.table(name, *(sa.column(column, kind) for column, kind in _COLUMNS))
    of_groups = (jobs.c.group_key.is_not(None), jobs.c.final_state.is_(None))
    waiting: dict[str, Any] = {"state": "waiting", "parked_at": jobs.c.due_at, "published_at": None}
    waiting |= {"publish_at": None, "lane_owner": None}
    op.execute(sa.update(jobs).where(*of_groups, jobs.c.state == "queued").values(waiting))
    holding = jobs.c.state.in_(("running", "retrying", "unhandled"))
    op.execute(sa.update(jobs).where(*of_groups, holding).values(has_place=True))
    # Their deliveries were kept in hand: now a relay wakes them, when they are due.
    retrying = (*of_groups, jobs.c.state == "retrying")
    op.execute(sa.update(jobs).where(*retrying).values(wake_at=jobs.c.due_at, lane_owner=None))


def _count(name: str, groups_name: str) -> None:
    jobs = sa.table(name, *(sa.column(column, kind) for column, kind in _COLUMNS))
    columns: tuple[tuple[str, Any], ...] = (("name", sa.Text()), ("held", sa.Integer()), ("waiting", sa.Integer()))
    columns += (("next_position", BIGINT), ("moved_at", TIME))
    groups = sa.table(groups_name, *(sa.column(column, kind) for column, kind in columns))
    unfinished = (jobs.c.group_key.is_not(None), jobs.c.final_state.is_(None))
    known = sa.exists().where(groups.c.name == jobs.c.group_key)
    long_ago = sa.cast(sa.literal_column(f"'{LONG_AGO}'"), TIME)
    missing = sa.select(jobs.c.group_key, long_ago).where(*unfinished, ~known).distinct()
    op.execute(sa.insert(groups).from_select(["name", "moved_at"], missing))

    def count(*which: sa.ColumnElement[bool]) -> sa.ScalarSelect[int]:
        of_group = sa.select(sa.func.count()).where(jobs.c.group_key == groups.c.name, *unfinished, *which)
        return of_group.scalar_subquery()

    values: dict[str, Any] = {"held": count(jobs.c.has_place), "waiting": count(jobs.c.state == "waiting")}
    op.execute(sa.update(groups).values(**values, moved_at=long_ago))
    # It was written late: what has had its turn is past.
    had_turn = sa.select(sa.func.max(jobs.c.position)).where(
        jobs.c.group_key == groups.c.name,
        sa.or_(jobs.c.final_state.in_(("succeeded", "failed")), jobs.c.has_place),
    )
    latest = had_turn.scalar_subquery()
    numbered = (groups.c.next_position.is_not(None), latest >= groups.c.next_position)
    op.execute(sa.update(groups).where(*numbered).values(next_position=latest + 1))
