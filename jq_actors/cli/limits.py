"""The watcher of the stop limits: a process beside the workers, started by Dramatiq as one of its fork
functions.

A thread in the parent would do too, were it not that Dramatiq forks from there, and a fork with threads is
unsafe.
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
"""What ``--fork-function`` gets."""
WATCH_INTERVAL = 0.5
"""Seconds between two looks at the board."""
EMPTY_LOOKS = 2
"""How many looks in a row of every process must have found nothing: a job may be on its way during one."""


def watch() -> int:
    """Tell the worker's parent to drain (SIGTERM) when a limit is reached; ends when it does, or when it is
    gone."""
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
    """The first limit of ``board`` that is reached, as words with the numbers; ``None``: none.

    Parameters:
      seconds: how long the worker has been running.
      resident: bytes of memory that its processes hold.
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
    """Resident memory of ``parent`` and its descendants but this process; shared pages count in each."""
    total = 0
    for process in (parent, *parent.children(recursive=True)):
        if process.pid != os.getpid():
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:  # it ended since it was listed, and so holds nothing
                continue
    return total
