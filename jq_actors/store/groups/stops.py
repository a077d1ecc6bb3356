"""Stopping groups: a pause, or the cancellation of what does not run. Whoever does it holds the groups' locks."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jq_actors.model.job import UNFINISHED_STATES, JobState
from jq_actors.model.turn_rules import PAUSED
from jq_actors.store.rows.storable import MAX_REASON, storable
from jq_actors.store.tables import Tables

from .rows import LockedGroups
from .turns import NOW, waiting

_CANCELLABLE = sorted(state.value for state in UNFINISHED_STATES - {JobState.RUNNING})
_GROUP = sa.bindparam("of_group", type_=sa.Text)
_REASON = sa.bindparam("why", type_=sa.Text)


class GroupStops:
    """The statements that stop groups."""

    def __init__(self, tables: Tables) -> None:
        g, jobs = tables.groups.c, tables.jobs
        c = jobs.c
        self._pause = sa.update(tables.groups).where(g.name == _GROUP).values(paused_at=NOW, paused_reason=_REASON)
        self._withdraw = (
            sa.update(jobs)
            .where(c.group_key == _GROUP, c.final_state.is_(None), c.state == JobState.QUEUED.value)
            .values(waiting(PAUSED))
        )
        self._holding = sa.select(sa.func.count()).where(c.group_key == _GROUP, c.final_state.is_(None), c.has_place)
        self._cancel = (
            sa.update(jobs)
            .where(c.group_key == _GROUP, c.final_state.is_(None), c.state.in_(_CANCELLABLE))
            .values(
                state=JobState.CANCELLED.value,
                final_state=JobState.CANCELLED.value,
                finished_at=NOW,
                reason=_REASON,
                has_place=False,
                publish_at=None,
                wake_at=None,
                parked_at=None,
                lane_owner=None,
            )
        )

    async def pause(
        self, connection: AsyncConnection, groups: LockedGroups, name: str, reason: str, now: datetime
    ) -> bool:
        """Pause the group: what is queued waits again, so that no claim can start it. ``False``: it was paused."""
        row = groups[name]
        if row.paused is not None:
            return False
        kept = storable(reason, MAX_REASON)
        parameters = {"of_group": name, "now": now}
        await connection.execute(self._pause, {**parameters, "why": kept})
        withdrawn = (await connection.execute(self._withdraw, parameters)).rowcount
        groups.put(replace(row, paused=kept, held=row.held - withdrawn, waiting=row.waiting + withdrawn))
        return True

    async def cancel(
        self, connection: AsyncConnection, groups: LockedGroups, name: str, reason: str, now: datetime
    ) -> int:
        """Cancel the unfinished jobs of the group but those that run. Returns how many."""
        parameters = {"of_group": name, "why": storable(reason, MAX_REASON), "now": now}
        count = (await connection.execute(self._cancel, parameters)).rowcount
        # What runs, also what was claimed just now: it keeps its place.
        holding = (await connection.scalar(self._holding, {"of_group": name})) or 0
        groups.put(replace(groups[name], held=holding, waiting=0))
        return count
