"""Releasing parked jobs: when the first of a group that may run wait in their rows, they are queued, in order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import dropwhile, takewhile
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.job import JobState

from .dialect import Dialect, encode_rows
from .group_rows import GroupPolicy, GroupRow, GroupRows
from .group_views import GroupViews, Sight, first_jobs
from .tables import JOB_ID, Tables, UtcDateTime

RELEASED_AT_ONCE = 100
"""Jobs of one group, unless `JobStore.group_window` says otherwise: enough to keep a worker busy meanwhile."""

Row = sa.Row[Any]

NOW = sa.bindparam("now", type_=UtcDateTime)


class GroupReleases:
    """Queues what was parked and need not be any more.

    It locks no group: what it misses because of a race is released by the next settlement of the group or by the
    relay's sweep, and what it releases too early is parked again by its claim.
    """

    def __init__(
        self, tables: Tables, dialect: Dialect, rows: GroupRows, views: GroupViews, policy: GroupPolicy
    ) -> None:
        self._rows, self._views, self._policy = rows, views, policy
        jobs = tables.jobs
        names = dialect.rows({"name": sa.Text()})
        parked = sa.exists().where(jobs.c.group_key == names.c.name, jobs.c.parked_at.is_not(None))
        self._with_parked = sa.select(names.c.name).where(parked)
        self._run = {overtake: first_jobs(tables, dialect, overtake=overtake) for overtake in (False, True)}
        self._release = _release(tables, dialect)

    async def release(self, connection: AsyncConnection, names: Iterable[str], now: datetime) -> int:
        """Queue, as a new dispatch and unpublished, the parked jobs at the head of these groups; returns how many.

        Only of groups that are not paused, and of numbered ones only where no number is missing before.
        """
        ripe = [sight for sight in await self.sights(connection, names) if is_ripe(sight)]
        if not ripe:
            return 0
        runs = await self._runs(connection, ripe)
        ids = [{"id": job_id} for sight in ripe for job_id in _waiting(sight, runs[sight.row.name], self._at_once)]
        released = await connection.execute(self._release, {"batch": encode_rows(ids), "now": now})
        return len(released.all())

    async def sights(self, connection: AsyncConnection, names: Iterable[str]) -> list[Sight]:
        """Those of the groups that have parked jobs and are not paused."""
        batch = {"batch": encode_rows([{"name": name} for name in set(names)])}
        parked = (await connection.execute(self._with_parked, batch)).scalars().all()
        if not parked:
            return []
        found = await self._rows.read(connection, parked)
        rows = {name: found.get(name) or GroupRow(name, None, None, ()) for name in parked}
        going = {name: row for name, row in rows.items() if row.paused is None}
        return list((await self._views.read(connection, going)).sights.values())

    @property
    def _at_once(self) -> int:
        return self._policy.window or RELEASED_AT_ONCE

    async def _runs(self, connection: AsyncConnection, sights: Sequence[Sight]) -> Mapping[str, list[Row]]:
        """The first jobs of each group: as many as one release can concern."""
        alike: defaultdict[tuple[int, bool], list[str]] = defaultdict(list)
        for sight in sights:
            alike[sight.rule.concurrency, sight.rule.overtake].append(sight.row.name)
        runs: defaultdict[str, list[Row]] = defaultdict(list)
        for (concurrency, overtake), names in alike.items():
            batch = encode_rows([{"name": name} for name in names])
            parameters = {"batch": batch, "count": concurrency - 1 + self._at_once}
            for row in await connection.execute(self._run[overtake], parameters):
                runs[row.group_key].append(row)
        return runs


def is_ripe(sight: Sight) -> bool:
    """Whether one of its jobs is parked although it is among the first that may run at once."""
    return any(member.state is JobState.WAITING and member.gap_before is None for member in sight.members)


def queued_anew(jobs: sa.Table) -> dict[str, Any]:
    """What makes a row a queued one that is published as a new dispatch: older copies are stale."""
    return {
        "state": JobState.QUEUED.value,
        "dispatch": jobs.c.dispatch + 1,
        "published_at": None,
        "publish_at": NOW,
        "lane_owner": None,
        "redispatches": 0,
        "reason": None,
        "wake_at": None,
        "parked_at": None,
    }


def _waiting(sight: Sight, rows: Sequence[Row], at_once: int) -> list[str]:
    """The first consecutive jobs that wait. A number that is not there ends them: a claim would park what follows."""
    run = list(takewhile(_is_waiting, dropwhile(lambda row: not _is_waiting(row), rows)))[:at_once]
    if sight.row.next_position is not None:
        run = [row for index, row in enumerate(run) if row.position == run[0].position + index]
    return [row.id for row in run]


def _is_waiting(row: Row) -> bool:
    return bool(row.state == JobState.WAITING)


def _release(tables: Tables, dialect: Dialect) -> sa.UpdateBase:
    jobs = tables.jobs
    b = dialect.rows({"id": JOB_ID})
    # Of a row that somebody else has locked we do not know what it will be; and who waits for no lock is in nobody's
    # deadlock.
    picked = (
        sa.select(jobs.c.seq)
        .join(b, b.c.id == jobs.c.id)
        .where(jobs.c.state == JobState.WAITING.value)
        .with_for_update(of=jobs, skip_locked=True)
        .cte("picked")
    )
    return sa.update(jobs).where(jobs.c.seq == picked.c.seq).values(queued_anew(jobs)).returning(jobs.c.id)
