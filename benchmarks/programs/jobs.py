"""The jobs: the same functions for every contestant, registered by each in its own way."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .probe import Probe

NAP = 0.1
"""Seconds that `nap` sleeps."""

_probe = Probe(Path(os.environ["JQ_BENCH_FOLDER"]))


async def noop(n: int) -> None:
    """Do nothing, as a coroutine."""
    _probe.began()
    _probe.ended()


def noop_sync(n: int) -> None:
    """Do nothing, in a thread."""
    _probe.began()
    _probe.ended()


async def nap(n: int) -> None:
    """A job that waits for something else."""
    _probe.began()
    await asyncio.sleep(NAP)
    _probe.ended()


async def stamp(sent: int) -> None:
    """Do nothing, but record how long ago the job was sent (nanoseconds of CLOCK_MONOTONIC)."""
    _probe.stamped(sent)
    _probe.ended()


def stamp_sync(sent: int) -> None:
    """The same in a thread."""
    _probe.stamped(sent)
    _probe.ended()


JOBS: tuple[Callable[[int], Any], ...] = (noop, noop_sync, nap, stamp, stamp_sync)
