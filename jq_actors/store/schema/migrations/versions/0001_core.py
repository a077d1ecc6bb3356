"""The core: jobs, payloads, attempts, workers.

What the columns and indexes are for is said in ``store/tables.py``. A migration never imports it: that module
moves on, and this one has to make in ten years what it makes today.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

JOB_ID = sa.Text().with_variant(postgresql.UUID(as_uuid=False), "postgresql")
BIGINT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
TIME = sa.TIMESTAMP(timezone=True).with_variant(sa.Text(), "sqlite")
_STORAGE = {
    "fillfactor": 50,
    "autovacuum_analyze_scale_factor": 0.01,
    "autovacuum_vacuum_scale_factor": 0.02,
}


def upgrade() -> None:
    """Make the tables."""
    name = op.get_context().opts["jobs_table"]
    _create_jobs(name)
    _index_jobs(name)
    _create_payloads(f"{name}_payloads")
    _create_attempts(f"{name}_attempts")
    _create_workers(f"{name}_workers")


def _create_jobs(name: str) -> None:
    op.create_table(
        name,
        sa.Column("seq", BIGINT, sa.Identity(), primary_key=True),
        sa.Column("id", JOB_ID, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("queue", sa.Text, nullable=False),
        sa.Column("group_key", sa.Text),
        sa.Column("position", BIGINT),
        sa.Column("priority", sa.SmallInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("final_state", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("dispatch", sa.Integer, nullable=False),
        sa.Column("published_at", TIME),
        sa.Column("publish_at", TIME),
        sa.Column("lane_owner", sa.Text),
        sa.Column("redispatches", sa.Integer, nullable=False),
        sa.Column("due_at", TIME, nullable=False),
        sa.Column("wake_at", TIME),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("crashes", sa.Integer, nullable=False),
        sa.Column("run_token", BIGINT),
        sa.Column("worker_id", sa.Text),
        sa.Column("enqueued_at", TIME, nullable=False),
        sa.Column("started_at", TIME),
        sa.Column("finished_at", TIME),
        sa.Column("tags", JSON, nullable=False),
        postgresql_with=_STORAGE,
        sqlite_autoincrement=True,
    )


def _index_jobs(name: str) -> None:
    unfinished, final = "final_state IS NULL", "final_state IS NOT NULL"
    _index(name, "id", ["id"], unique=True)
    _index(name, "wake", ["wake_at"], "wake_at IS NOT NULL")
    _index(name, "publish", ["publish_at", "seq"], "publish_at IS NOT NULL")
    _index(name, "publish_queue", ["queue", "publish_at", "seq"], "publish_at IS NOT NULL")
    _index(name, "published", ["queue", "published_at"], f"{unfinished} AND published_at IS NOT NULL")
    _index(name, "lane", ["lane_owner"], "lane_owner IS NOT NULL")
    _index(name, "expiry", ["final_state", "finished_at"], final)
    _index(name, "unfinished", ["seq"], unfinished)
    _index(name, "final", ["final_state", "seq"], final)
    _index(name, "actor", ["actor", "seq"])
    _index(name, "queue", ["queue", "seq"])
    _index(name, "group", ["group_key", "seq"], "group_key IS NOT NULL")


def _index(name: str, suffix: str, columns: list[str], where: str | None = None, *, unique: bool = False) -> None:
    condition = None if where is None else sa.text(where)
    op.create_index(
        f"{name}_{suffix}", name, columns, unique=unique, postgresql_where=condition, sqlite_where=condition
    )


def _create_payloads(name: str) -> None:
    op.create_table(
        name,
        sa.Column("job_id", JOB_ID, primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("result", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("traceback", sa.Text),
    )


def _create_attempts(name: str) -> None:
    op.create_table(
        name,
        sa.Column("job_id", JOB_ID, primary_key=True),
        sa.Column("run_token", BIGINT, primary_key=True, autoincrement=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("worker_id", sa.Text, nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("finished_at", TIME, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("error", sa.Text),
    )


def _create_workers(name: str) -> None:
    op.create_table(
        name,
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("process_started", sa.Double, nullable=False),
        sa.Column("lease_until", TIME, nullable=False),
        sa.Column("heartbeat_at", TIME, nullable=False),
        sa.Column("queues", JSON, nullable=False),
        sa.Column("held", JSON, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        postgresql_with={"fillfactor": 50},
    )
