"""Groups, whatever happens to them in whatever order: places are held by those whose turn it is, and all jobs end."""

from __future__ import annotations

import pytest

from jq_actors.events import GroupsMended
from jq_actors.model.job import FINAL_STATES

from .group_walk import Walk
from .places import wrong_in
from .stores import World

STEPS = 60


@pytest.mark.parametrize("seed", range(2))
async def test_what_is_true_of_groups_stays_true_at_each_step(db: World, seed: int) -> None:
    mended = db.record(GroupsMended)
    walk = Walk(db, [await db.worker() for _ in range(2)], seed)
    done: list[str] = []
    for _ in range(STEPS):
        done.append(await walk.step())
        assert await wrong_in(db) == [], done[-10:]
    await walk.drain()
    assert await wrong_in(db) == []
    assert {*await walk.stores[0].count_by_state()} <= FINAL_STATES
    assert mended.seen == []
