"""Groups: their order among the jobs, and a row for each."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BIGINT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
TIME = sa.TIMESTAMP(timezone=True).with_variant(sa.Text(), "sqlite")
_STORAGE = {
    "fillfactor": 50,
    "autovacuum_analyze_scale_factor": 0.01,
    "autovacuum_vacuum_scale_factor": 0.02,
}


def upgrade() -> None:
    """Change the tables."""
    name = op.get_context().opts["jobs_table"]
    op.add_column(name, sa.Column("order_key", BIGINT))
    op.add_column(name, sa.Column("parked_at", TIME))
    _take_places(name)
    _index_jobs(name)
    _create_groups(f"{name}_groups")


def _take_places(name: str) -> None:
    jobs = sa.table(name, *(sa.column(column) for column in ("group_key", "state", "order_key")))
    scheduled = (jobs.c.group_key.is_not(None), jobs.c.state == "scheduled")
    # NO_PLACE: it takes one when it is due.
    op.execute(sa.update(jobs).where(*scheduled).values(order_key=2**62))


def _index_jobs(name: str) -> None:
    op.drop_index(f"{name}_published", name)
    alone = "group_key IS NULL AND final_state IS NULL AND published_at IS NOT NULL"
    _index(name, "published", ["queue", "published_at"], alone)
    order = sa.text("coalesce(order_key, seq)")
    _index(name, "turn", ["group_key", order], "group_key IS NOT NULL AND final_state IS NULL")
    _index(name, "parked", ["group_key"], "parked_at IS NOT NULL")
    _index(name, "position", ["group_key", "position"], "position IS NOT NULL", unique=True)


def _index(
    name: str, suffix: str, columns: list[str | sa.TextClause], where: str | None = None, *, unique: bool = False
) -> None:
    condition = None if where is None else sa.text(where)
    op.create_index(
        f"{name}_{suffix}", name, columns, unique=unique, postgresql_where=condition, sqlite_where=condition
    )


def _create_groups(name: str) -> None:
    op.create_table(
        name,
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("paused_at", TIME),
        sa.Column("paused_reason", sa.Text),
        sa.Column("next_position", BIGINT),
        sa.Column("holders", JSON, nullable=False, server_default=sa.text("'[]'")),
        sa.Column("moved_at", TIME, nullable=False),
        postgresql_with=_STORAGE,
    )
    _index(name, "moved", ["moved_at"])
