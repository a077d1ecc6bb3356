"""The watcher of the stop limits: a process beside the workers, which Dramatiq starts as one of its fork functions.

It is not a thread of the parent, because Dramatiq forks there, and forking a process that has threads is unsafe.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import psutil

from jq_actors.clock import SystemClock
from jq_actors.events import Events, LimitReached
from jq_actors.worker.limits import BOARD_VARIABLE, Board

WATCH_FUNCTION = f"{__name__}:watch"
"""The value for Dramatiq's ``--fork-function``."""
WATCH_INTERVAL = 0.5
"""Seconds between two looks at the board."""
EMPTY_LOOKS = 2
"""How many looks in a row must find nothing, in every process: during a single one, a job may be on its way."""


def watch() -> int:
    """Send the worker's parent SIGTERM (drain) when a limit is reached. Returns 0 then, or when the parent is gone."""
    board = Board.load(Path(os.environ[BOARD_VARIABLE]))
    parent = psutil.Process(board.parent)
    clock = SystemClock()
    started = clock.monotonic()
    pause = threading.Event()
    while parent.is_running() and parent.status() != psutil.STATUS_ZOMBIE:
        reached = reached_limit(board, clock.monotonic() - started, resident_bytes(parent))
        if reached is not None:
            Events().emit(LimitReached(reached))
            parent.send_signal(signal.SIGTERM)
            return 0
        pause.wait(WATCH_INTERVAL)
    return 0


def reached_limit(board: Board, seconds: float, resident: int) -> str | None:
    """Describe the first limit of ``board`` that is reached, with its numbers; ``None`` if there is none.

    Parameters:
      seconds: how long the worker has been running.
      resident: how many bytes of memory its processes hold.
    """
    limits, tallies = board.limits, board.tallies()
    jobs, failures = sum(tally.jobs for tally in tallies), sum(tally.failures for tally in tallies)
    empty = len(tallies) >= board.processes and all(tally.empty_looks >= EMPTY_LOOKS for tally in tallies)
    if limits.seconds is not None and seconds >= limits.seconds:
        return f"{seconds:.0f} of {limits.seconds:g} seconds"
    if limits.jobs is not None and jobs >= limits.jobs:
        return f"{jobs} of {limits.jobs} jobs"
    if limits.failures is not None and failures >= limits.failures:
        return f"{failures} of {limits.failures} failed jobs"
    if limits.memory is not None and resident >= limits.memory:
        return f"{resident >> 20} of {limits.memory >> 20} MiB of memory"
    if limits.when_empty and empty:
        return "the queues are empty"
    return None


def resident_bytes(parent: psutil.Process) -> int:
    """Resident memory, in bytes, of ``parent`` and all its descendants except this process.

    Pages that processes share count in each of them.
    """
    total = 0
    for process in (parent, *parent.children(recursive=True)):
        if process.pid != os.getpid():
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:  # it has ended since it was listed, so it holds no memory
                continue
    return total
