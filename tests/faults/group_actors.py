"""Actors whose jobs are steps of groups, as a user would write them. Each keeps the journal.

What the journal calls the number of a run is here its group and its place, see `entry`.
"""

from __future__ import annotations

import asyncio
import time

from jq_actors import actor, current_job
from tests.faults.gate import opened
from tests.faults.journal import written_async, written_sync

PLACES = 100_000
"""More than a group has places."""
FOR_GOOD = -1
"""So many ``failures``: its first run is its last."""


class AgainError(Exception):
    """This attempt fails; a later one will not."""


class GoodbyeError(Exception):
    """The job fails, and is not tried again."""


@actor(queue_name="work", group="tenant-{group}", throws=GoodbyeError)
async def step(group: int, place: int, seconds: float = 0.0, failures: int = 0) -> None:
    """Take so long, and fail so often."""
    async with written_async(entry(group, place)):
        await asyncio.sleep(seconds)
        _fail(failures)


@actor(queue_name="work", group="tenant-{group}", throws=GoodbyeError)
def step_in_thread(group: int, place: int, seconds: float = 0.0, failures: int = 0) -> None:
    """The sync twin of `step`."""
    with written_sync(entry(group, place)):
        time.sleep(seconds)
        _fail(failures)


@actor(queue_name="work", group="tenant-{group}")
async def step_behind_gate(group: int, place: int) -> None:
    """Wait until the gate is opened."""
    async with written_async(entry(group, place)):
        await opened()


def entry(group: int, place: int) -> int:
    """The number of a run in the journal."""
    return group * PLACES + place


def _fail(failures: int) -> None:
    if failures == FOR_GOOD:
        raise GoodbyeError
    if current_job().attempt <= failures:
        raise AgainError
