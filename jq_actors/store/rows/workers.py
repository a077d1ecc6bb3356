"""Rows of workers: which ones live, until when, and which deliveries they hold."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from importlib import metadata
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.errors import RuntimeStateError
from jq_actors.model.worker_identity import WorkerIdentity, is_known_dead
from jq_actors.store.database.dialect import Dialect
from jq_actors.store.tables import Tables, UtcDateTime


class Workers:
    """Writes the row of this process, and reads those of all workers."""

    def __init__(self, tables: Tables, dialect: Dialect, grace: timedelta) -> None:
        self._workers = tables.workers
        self._me: WorkerIdentity | None = None
        self._queues: list[str] = []
        self._lease = timedelta()
        self._grace = grace
        self._renewed_at: datetime | None = None
        self._no_lease_ends_before: datetime | None = None
        self._insert = dialect.insert(tables.workers).on_conflict_do_nothing(index_elements=[tables.workers.c.id])
        self._hold = held_worker(tables)
        self._renew = (
            sa.update(tables.workers)
            .where(tables.workers.c.id == sa.bindparam("me", type_=sa.Text))
            .values(
                lease_until=sa.bindparam("until", type_=UtcDateTime),
                heartbeat_at=sa.bindparam("now", type_=UtcDateTime),
                held=sa.bindparam("holds", type_=tables.workers.c.held.type),
            )
        )

    @property
    def my_id(self) -> str:
        """The id of this process.

        Raises:
          RuntimeStateError: it was not registered, or has left.
        """
        if self._me is None:
            raise RuntimeStateError("A worker has to be registered before it claims jobs.")
        return self._me.id

    @property
    def my_id_or_none(self) -> str | None:
        """The id of this process; ``None`` if it was not registered, or has left."""
        return None if self._me is None else self._me.id

    @property
    def patience(self) -> float:
        """Seconds that a renewal of the lease may take, so that one that hangs is given up, and repeated in time."""
        return max(1.0, self._lease.total_seconds() / 2)

    def enrol(self, worker: WorkerIdentity, queues: Sequence[str], lease: timedelta) -> None:
        """Make this process the worker ``worker``. `renew` or `hold` creates its row."""
        self._me, self._queues, self._lease = worker, list(queues), lease
        self._renewed_at = None

    def forget(self) -> None:
        """Forget that this process was a worker."""
        self._me = None

    def is_me(self, worker_id: str) -> bool:
        """Whether a worker of this id is this process."""
        return self._me is not None and self._me.id == worker_id

    def has_to_renew(self, now: datetime) -> bool:
        """Whether the last renewal is so long ago that something is wrong: renew the lease before anything else."""
        return self._me is not None and (self._renewed_at is None or now - self._renewed_at > self._lease / 2)

    def renewed(self, now: datetime) -> None:
        """Note that the lease was renewed. If it was late, others may have been unable to renew theirs: give them time.

        After an outage of the database no worker is considered lost merely because none could renew its lease.
        """
        if self.has_to_renew(now):
            self._no_lease_ends_before = now + self._grace
        self._renewed_at = now

    def lease_end(self, lease_until: datetime) -> datetime:
        """When to consider a worker lost whose row says ``lease_until``."""
        return lease_until if self._no_lease_ends_before is None else max(lease_until, self._no_lease_ends_before)

    async def hold(self, connection: AsyncConnection, now: datetime) -> None:
        """Ensure that the row of this process exists until the transaction ends."""
        if (await connection.scalar(self._hold, {"me": self.my_id})) is None:
            await connection.execute(self._insert, self._row(now, {}))

    async def renew(self, connection: AsyncConnection, now: datetime, held: Mapping[str, int]) -> None:
        """Renew the lease. A process that was considered lost, and is not, creates its row again."""
        parameters = {"me": self.my_id, "now": now, "until": now + self._lease, "holds": dict(held)}
        if (await connection.execute(self._renew, parameters)).rowcount == 0:
            await connection.execute(self._insert, self._row(now, held))

    async def held(self, connection: AsyncConnection, queue: str, now: datetime) -> int:
        """How many deliveries of ``queue`` are held by living workers."""
        living = sa.select(self._workers.c.held).where(self._workers.c.lease_until > now)
        return sum(held.get(queue, 0) for held in (await connection.execute(living)).scalars())

    def _row(self, now: datetime, held: Mapping[str, int]) -> dict[str, Any]:
        assert self._me is not None
        return {
            "id": self._me.id,
            "name": self._me.name,
            "host": self._me.host,
            "pid": self._me.pid,
            "process_started": self._me.process_started,
            "lease_until": now + self._lease,
            "heartbeat_at": now,
            "queues": self._queues,
            "held": dict(held),
            "version": _VERSION,
        }


def held_worker(tables: Tables) -> sa.Select[str]:
    """The id of the worker ``me``, whose row then stays until the transaction ends.

    This keeps a claim and the removal of its worker apart: the recovery looks for running rows only when it holds
    the worker's row alone, and without the row nothing is claimed. So no job can run for a worker that nobody
    watches. Heartbeats do not wait for the lock (KEY SHARE); SQLite has one writer at a time and needs none.
    """
    me = tables.workers.c.id == sa.bindparam("me", type_=sa.Text)
    return sa.select(tables.workers.c.id).where(me).with_for_update(read=True, key_share=True)


async def known_dead(owners: Mapping[str, tuple[str, int, float]]) -> frozenset[str]:
    """The ids of the workers (host, pid, start of the process) that are known to be dead."""
    if not owners:
        return frozenset()
    # In a thread: it reads /proc.
    return await asyncio.to_thread(
        lambda: frozenset(worker_id for worker_id, process in owners.items() if is_known_dead(*process))
    )


def _version() -> str:
    try:
        return metadata.version("jq-actors")
    except metadata.PackageNotFoundError:
        return "unknown"  # run from a source tree that is not installed


_VERSION = _version()
