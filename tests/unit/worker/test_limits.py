"""`jq_actors.worker.limits` and its watcher: tallies of processes add up, and each limit is seen when reached."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest

from jq_actors.cli.limits import reached_limit
from jq_actors.clock import SystemClock
from jq_actors.errors import StoreUnavailableError, TransportError
from jq_actors.events import Events, JobFailed, JobFinished
from jq_actors.model.job import Job, JobId
from jq_actors.store.port import JobStore
from jq_actors.store.records import JobFilter, JobPage
from jq_actors.transport.port import QueueDepth, Transport
from jq_actors.worker.limits import Board, LimitReporter, Limits, Tally
from tests.support.clock import FakeClock

FINISHED = JobFinished(JobId("x"), "a", "q", 1, "succeeded", 0.1)
FAILED = JobFailed(JobId("x"), "a", "q", 1, "ValueError")
EVERY_LIMIT = Limits(seconds=60, jobs=10, failures=3, memory=1 << 30, when_empty=True)


def board_in(folder: Path, limits: Limits = EVERY_LIMIT, processes: int = 2) -> Board:
    board = Board(folder, limits, os.getpid(), processes)
    board.save()
    return board


def test_a_board_is_read_back(tmp_path: Path) -> None:
    board = board_in(tmp_path)
    assert Board.load(tmp_path) == board
    assert board.tallies() == []


def test_events_are_counted(tmp_path: Path) -> None:
    board, events = board_in(tmp_path), Events()
    reporter = LimitReporter(events, tmp_path, SystemClock())
    assert board.tallies() == [Tally()]
    for event in (FINISHED, FINISHED, FAILED, FINISHED):
        events.emit(event)
    assert board.tallies() == [Tally(jobs=3, failures=1)]
    reporter.close()
    events.emit(FINISHED)
    assert board.tallies() == [Tally(jobs=3, failures=1)]


def _report(folder: str, jobs: int) -> None:
    events = Events()
    reporter = LimitReporter(events, Path(folder), SystemClock())
    for _ in range(jobs):
        events.emit(FINISHED)
    reporter.close()


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # fork, from Python 3.12 on
def test_each_process_has_a_tally_of_its_own(tmp_path: Path, method: str) -> None:
    board = board_in(tmp_path)
    context = multiprocessing.get_context(method)
    children = [context.Process(target=_report, args=(str(tmp_path), jobs)) for jobs in (300, 700)]  # type: ignore[attr-defined]  # both methods have it
    for child in children:
        child.start()
    for child in children:
        child.join(30)
        assert child.exitcode == 0
    assert sorted(tally.jobs for tally in board.tallies()) == [300, 700]
    assert reached_limit(board, 0, 0) == "1000 of 10 jobs"


# -- which limit is reached -------------------------------------------------------------------------------


class Worker:
    """Two processes' reporters, in one."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.board = board_in(folder, limits)
        self._folder = folder

    def tally(self, name: str, tally: Tally) -> None:
        events = Events()
        reporter = LimitReporter(events, self._folder, SystemClock())
        for _ in range(tally.jobs):
            events.emit(FINISHED)
        for _ in range(tally.failures):
            events.emit(FAILED)
        reporter.close()
        (self._folder / f"{os.getpid()}.tally").rename(self._folder / f"{name}.tally")


@pytest.mark.parametrize(
    ("limits", "seconds", "resident", "reached"),
    [
        (Limits(), 1e9, 1 << 60, None),
        (Limits(seconds=60), 59.9, 0, None),
        (Limits(seconds=60), 60.2, 0, "60 of 60 seconds"),
        (Limits(jobs=8), 0, 0, None),
        (Limits(jobs=7), 0, 0, "7 of 7 jobs"),
        (Limits(failures=4), 0, 0, None),
        (Limits(failures=3), 0, 0, "3 of 3 failed jobs"),
        (Limits(memory=512 << 20), 0, (512 << 20) - 1, None),
        (Limits(memory=512 << 20), 0, 600 << 20, "600 of 512 MiB of memory"),
    ],
)
def test_a_limit_counts_over_all_processes(
    tmp_path: Path, limits: Limits, seconds: float, resident: int, reached: str | None
) -> None:
    worker = Worker(tmp_path, limits)
    worker.tally("one", Tally(jobs=5, failures=1))
    worker.tally("two", Tally(jobs=2, failures=2))
    assert reached_limit(worker.board, seconds, resident) == reached


MEASURE = """
import subprocess, sys, psutil
from jq_actors.cli.limits import resident_bytes

alone = resident_bytes(psutil.Process())
script = "held = b'x' * (64 << 20); print('ready', flush=True); input()"
with subprocess.Popen([sys.executable, "-c", script], stdin=-1, stdout=-1) as child:
    child.stdout.readline()
    print(alone, resident_bytes(psutil.Process()))
    child.communicate(b"end")
"""


def test_resident_memory_is_that_of_the_tree_without_the_watcher_itself() -> None:
    measured = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, check=True, text=True).stdout
    alone, with_child = map(int, measured.split())
    assert alone == 0
    assert 64 << 20 < with_child < 128 << 20


# -- empty ------------------------------------------------------------------------------------------------


class Rows:
    """What `watch_empty` asks of a store."""

    def __init__(self) -> None:
        self.busy_queues: set[str] = set()
        self.due: datetime | None = None
        self.away = False
        self.asked: list[JobFilter] = []

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    async def next_due(self) -> datetime | None:
        if self.away:
            raise StoreUnavailableError("away")
        return self.due

    async def find(self, where: JobFilter, limit: int, after: str | None) -> JobPage:
        self.asked.append(where)
        found = (cast(Job, object()),) if where.queue in self.busy_queues else ()
        return JobPage(found, None)


class Broker:
    """What `watch_empty` asks of a transport."""

    def __init__(self) -> None:
        self.ready = {"a": 0, "b": 0}
        self.away = False

    async def depth(self, queue: str) -> QueueDepth | None:
        if self.away:
            raise TransportError("away")
        return QueueDepth(self.ready[queue], 1) if queue in self.ready else None


class Watching:
    """A reporter that watches, step by step."""

    def __init__(self, folder: Path, clock: FakeClock, rows: Rows | None, broker: Broker) -> None:
        self.board, self.clock, self.in_hand = board_in(folder, processes=1), clock, 0
        self.reporter = LimitReporter(Events(), folder, clock)
        self.task = asyncio.create_task(
            self.reporter.watch_empty(
                ["a", "b"],
                store=cast("JobStore | None", rows),
                transport=cast(Transport, broker),
                in_hand=lambda: self.in_hand,
            )
        )

    async def look(self) -> int:
        """One more look; returns how many in a row have found nothing."""
        await self.clock.advance(1.0)
        [tally] = self.board.tallies()
        return tally.empty_looks

    async def end(self) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task
        self.reporter.close()


@pytest.mark.blocking_allowed  # the test itself looks at the board, on the loop
async def test_with_rows_it_is_empty_when_none_is_queued_running_or_due(tmp_path: Path, clock: FakeClock) -> None:
    rows, broker = Rows(), Broker()
    broker.ready["a"] = 5  # copies of what is done: with rows, rows decide
    watching = Watching(tmp_path, clock, rows, broker)
    assert [await watching.look(), await watching.look()] == [1, 2]
    assert {where.queue for where in rows.asked} == {"a", "b"}
    rows.busy_queues = {"b"}
    assert [await watching.look(), await watching.look()] == [0, 0]
    rows.busy_queues = {"elsewhere"}
    assert await watching.look() == 1
    rows.due = rows.now()
    assert await watching.look() == 0
    rows.due = rows.now() + timedelta(seconds=1)
    assert await watching.look() == 1
    rows.away = True
    assert await watching.look() == 0
    await watching.end()


@pytest.mark.blocking_allowed  # the test itself looks at the board, on the loop
async def test_without_rows_broker_and_hands_decide(tmp_path: Path, clock: FakeClock) -> None:
    broker = Broker()
    del broker.ready["b"]  # a queue that nobody has used does not exist
    watching = Watching(tmp_path, clock, None, broker)
    assert [await watching.look(), await watching.look()] == [1, 2]
    broker.ready["a"] = 1
    assert await watching.look() == 0
    broker.ready["a"], watching.in_hand = 0, 1
    assert await watching.look() == 0
    watching.in_hand = 0
    assert await watching.look() == 1
    broker.away = True
    assert await watching.look() == 0
    await watching.end()


@pytest.mark.blocking_allowed  # the test itself looks at the board, on the loop
async def test_empty_counts_when_every_process_has_seen_it_twice(tmp_path: Path, clock: FakeClock) -> None:
    watching = Watching(tmp_path, clock, Rows(), Broker())
    await watching.look()
    assert reached_limit(watching.board, 0, 0) is None
    await watching.look()
    assert reached_limit(watching.board, 0, 0) == "the queues are empty"
    two_processes = board_in(tmp_path, processes=2)
    assert reached_limit(two_processes, 0, 0) is None
    await watching.end()
