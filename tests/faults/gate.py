"""A gate: jobs wait before it until the test opens it."""

from __future__ import annotations

import asyncio
from pathlib import Path

GATE = Path("gate")
"""In the working directory of the worker."""
LOOK_EVERY = 0.05

_of_loop: dict[asyncio.AbstractEventLoop, asyncio.Task[None]] = {}


async def opened() -> None:
    """Return when the gate is open."""
    loop = asyncio.get_running_loop()
    if loop not in _of_loop:  # one looks for all: there may be thousands
        _of_loop[loop] = loop.create_task(_look())
    await asyncio.shield(_of_loop[loop])


async def _look() -> None:
    while not await asyncio.to_thread(GATE.exists):  # noqa: ASYNC110 - another process opens it
        await asyncio.sleep(LOOK_EVERY)
