"""The actors of the fault tests, as a user would write them. Each keeps a journal of its runs."""

from __future__ import annotations

import asyncio
import os
import signal
import time

from jq_actors import Retry, actor
from tests.faults.gate import opened
from tests.faults.journal import note_async, note_sync, written_async, written_sync


@actor(queue_name="work")
async def counts(number: int) -> int:
    """Nothing but one entry in the journal."""
    await note_async(number)
    return number


@actor(queue_name="work")
async def sleeps(number: int, seconds: float) -> int:
    """Returns the process that it ran in."""
    async with written_async(number):
        await asyncio.sleep(seconds)
    return os.getpid()


@actor(queue_name="work")
async def naps(seconds: float) -> None:
    """`sleeps` without a journal: for workers in the tests' own process, which may not be left with its connections."""
    await asyncio.sleep(seconds)


@actor(queue_name="work")
async def waits(number: int) -> int:
    """Runs until the gate is opened."""
    async with written_async(number):
        await opened()
    return number


@actor(queue_name="work")
async def comes_again(number: int, milliseconds: int) -> int:
    """Fails once, and is retried after ``milliseconds``."""
    async with written_async(number) as earlier_runs:
        pass
    if not earlier_runs:
        raise Retry(delay=milliseconds)
    return number


@actor(queue_name="work")
def sleeps_in_thread(number: int, seconds: float) -> int:
    """The sync twin of `sleeps`."""
    with written_sync(number):
        time.sleep(seconds)
    return os.getpid()


@actor(queue_name="work")
def kills_its_process(number: int) -> None:
    """A poison job."""
    note_sync(number)
    os.kill(os.getpid(), signal.SIGKILL)
