"""Stopping groups: a pause, or the cancellation of what does not run. Whoever does it holds the groups' locks."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.job import UNFINISHED_STATES, JobState

from .dialect import Dialect, encode_rows
from .group_release import NOW
from .storable import MAX_REASON, storable
from .tables import Tables

_CANCELLABLE = sorted(state.value for state in UNFINISHED_STATES - {JobState.RUNNING})
_GROUP = sa.bindparam("of_group", type_=sa.Text)
_REASON = sa.bindparam("why", type_=sa.Text)


class GroupStops:
    """The statements that stop groups."""

    def __init__(self, tables: Tables, dialect: Dialect) -> None:
        g, c = tables.groups.c, tables.jobs.c
        b = dialect.rows({"name": sa.Text(), "reason": sa.Text()}).c
        self._pause = (
            sa.update(tables.groups)
            .where(g.name == b.name, g.paused_at.is_(None))
            .values(paused_at=NOW, paused_reason=b.reason)
            .returning(g.name)
        )
        self._cancel = (
            sa.update(tables.jobs)
            .where(c.group_key == _GROUP, c.final_state.is_(None), c.state.in_(_CANCELLABLE))
            .values(
                state=JobState.CANCELLED.value,
                final_state=JobState.CANCELLED.value,
                finished_at=NOW,
                reason=_REASON,
                publish_at=None,
                wake_at=None,
                parked_at=None,
                lane_owner=None,
            )
        )

    async def pause(self, connection: AsyncConnection, reasons: Mapping[str, str], now: datetime) -> list[str]:
        """Pause the groups, each for its reason. Returns those that were not paused already."""
        batch = [{"name": name, "reason": storable(reason, MAX_REASON)} for name, reason in reasons.items()]
        paused = await connection.execute(self._pause, {"batch": encode_rows(batch), "now": now})
        return list(paused.scalars())

    async def cancel(self, connection: AsyncConnection, group: str, reason: str, now: datetime) -> int:
        """Cancel the unfinished jobs of the group but those that run. Returns how many."""
        parameters = {"of_group": group, "why": storable(reason, MAX_REASON), "now": now}
        return (await connection.execute(self._cancel, parameters)).rowcount
