"""What a worker's processes report to the watcher of its stop limits: jobs ended, jobs failed, empty queues.

`jq-actors worker` makes a *board*, a folder whose path travels in `BOARD_VARIABLE` to processes that are
forked or spawned. Each process writes its own tally there, a few mapped bytes, and no other process writes it; the
watcher (see `cli.limits`) adds them up. So limits count over all processes, without a lock or a pipe between
them.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from jq_actors.clock import Clock
from jq_actors.errors import StoreError, TransportError
from jq_actors.events import Events, JobFailed, JobFinished
from jq_actors.model.job import JobState
from jq_actors.store.port import JobStore
from jq_actors.store.records import JobFilter
from jq_actors.transport.port import Transport

BOARD_VARIABLE = "JQ_LIMIT_BOARD"
"""The environment variable with the folder; set for the processes of `jq-actors worker` with a stop limit."""

LOOK_INTERVAL = 1.0
"""Seconds between two checks whether the queues are empty."""

# Native, so that each number is written by one aligned 8-byte store: `<Q` goes byte by byte, and a reader
# that reads in between could see 511 on the way from 255 to 256.
_TALLY = struct.Struct("@QQQ")
_SUFFIX = ".tally"


@dataclass(frozen=True, slots=True)
class Limits:
    """When a worker stops by itself; ``None``: never for this reason. All count over its processes
    together."""

    seconds: float | None = None
    jobs: int | None = None
    """Ended attempts, whatever their outcome."""
    failures: int | None = None
    """Jobs that failed for good; an attempt that is retried does not count."""
    memory: int | None = None
    """Resident bytes of the parent and all its descendants."""
    when_empty: bool = False


@dataclass(frozen=True, slots=True)
class Tally:
    """The counts of one process."""

    jobs: int = 0
    failures: int = 0
    empty_looks: int = 0
    """How many checks in a row found nothing to do."""


@dataclass(frozen=True, slots=True)
class Board:
    """The folder: the limits, the processes they apply to, and a tally of each process."""

    folder: Path
    limits: Limits
    parent: int
    """Pid of the worker's parent process. (With a fork server it is not the processes' own parent.)"""
    processes: int
    """How many processes write tallies."""

    def save(self) -> None:
        """Write what `load` reads."""
        content = {"limits": asdict(self.limits), "parent": self.parent, "processes": self.processes}
        (self.folder / "board.json").write_text(json.dumps(content), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Board:
        """The board in ``folder``."""
        content = json.loads((folder / "board.json").read_text(encoding="utf-8"))
        return cls(folder, Limits(**content["limits"]), content["parent"], content["processes"])

    def tallies(self) -> list[Tally]:
        """The tallies of the processes that have begun."""
        return [
            Tally(*_TALLY.unpack(content))
            for path in self.folder.glob(f"*{_SUFFIX}")
            if len(content := path.read_bytes()) == _TALLY.size
        ]


class LimitReporter:
    """A worker process's part: keeps its tally from the events of its runtime.

    Parameters:
      events: where `JobFinished` and `JobFailed` come from.
      folder: the board, the value of `BOARD_VARIABLE`.
      clock: for the pauses of `watch_empty`.
    """

    def __init__(self, events: Events, folder: Path, clock: Clock) -> None:
        self.watches_empty = Board.load(folder).limits.when_empty
        self._clock = clock
        self._lock = threading.Lock()  # events come from several threads
        self._jobs = self._failures = self._empty_looks = 0
        self._map = _map_tally(folder / f"{os.getpid()}{_SUFFIX}")
        self._unsubscribe = [
            events.subscribe(JobFinished, lambda _: self._add(jobs=1)),
            events.subscribe(JobFailed, lambda _: self._add(failures=1)),
        ]

    def close(self) -> None:
        """Stop counting; what was counted stays on the board."""
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        with self._lock:
            self._map.close()

    async def watch_empty(
        self,
        queues: Sequence[str],
        *,
        store: JobStore | None,
        transport: Transport,
        in_hand: Callable[[], int],
    ) -> None:
        """Check every second whether ``queues`` have no work left, until cancelled. On the I/O loop.

        Parameters:
          store: with it, its rows decide: none is queued, running or due.
          transport: without a store, the broker's queues decide, and
          in_hand: how many deliveries this process holds.
        """
        while True:
            await self._clock.sleep(LOOK_INTERVAL)
            if await _is_empty(queues, store, transport, in_hand):
                self._add(empty_looks=1)
            else:
                self._reset_empty_looks()

    def _add(self, *, jobs: int = 0, failures: int = 0, empty_looks: int = 0) -> None:
        with self._lock:
            self._jobs += jobs
            self._failures += failures
            self._empty_looks += empty_looks
            self._write()

    def _reset_empty_looks(self) -> None:
        with self._lock:
            self._empty_looks = 0
            self._write()

    def _write(self) -> None:
        if not self._map.closed:  # an event may still be on its way while this closes
            _TALLY.pack_into(self._map, 0, self._jobs, self._failures, self._empty_looks)


async def _is_empty(
    queues: Sequence[str], store: JobStore | None, transport: Transport, in_hand: Callable[[], int]
) -> bool:
    try:
        if store is not None:
            return not await _has_work(store, queues)
        depths = [await transport.depth(queue) for queue in queues]
        return in_hand() == 0 and all(depth is None or depth.ready == 0 for depth in depths)
    except (StoreError, TransportError):
        return False  # unknown is not empty; the lost connection is reported where it happened


async def _has_work(store: JobStore, queues: Sequence[str]) -> bool:
    next_due = await store.next_due()
    if next_due is not None and next_due <= store.now():
        return True  # the relay is about to queue it, maybe here
    for queue in queues:
        where = JobFilter(states=frozenset({JobState.QUEUED, JobState.RUNNING}), queue=queue)
        if (await store.find(where, limit=1, after=None)).jobs:
            return True
    return False


def _map_tally(path: Path) -> mmap.mmap:
    with path.open("w+b") as file:
        file.write(_TALLY.pack(0, 0, 0))
        file.flush()
        return mmap.mmap(file.fileno(), _TALLY.size)
