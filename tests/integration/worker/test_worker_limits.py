"""`jq-actors worker`: each stop limit drains it, counted over its processes, and it ends with 0."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from jq_actors import actor, jobs
from tests.conftest import StartWorker
from tests.support.application import Application, Place, running
from tests.support.workers import WorkerProcess

MODULE = """
from jq_actors import actor

@actor
async def fine(number): ...

@actor(max_retries=0)
def wrong(): raise ValueError("meant to fail")
"""

Start = Callable[..., WorkerProcess]


@pytest.fixture
def folder_for_boards(tmp_path: Path) -> Path:
    folder = tmp_path / "boards"
    folder.mkdir()
    return folder


@pytest.fixture
def start(start_worker: StartWorker, tmp_path: Path, folder_for_boards: Path) -> Start:
    """Start a worker with the given options in a place."""

    def start_in(place: Place, *options: str) -> WorkerProcess:
        (tmp_path / "jq_actors.yaml").write_text(yaml.safe_dump(place.configuration))
        (tmp_path / "limited_jobs.py").write_text(MODULE)
        command = ("jq-actors", "worker", "limited_jobs", "--threads", "2", *options)
        return start_worker(*command, env={"TMPDIR": str(folder_for_boards)})

    return start_in


@pytest.fixture(autouse=True)
def _no_board_is_left(folder_for_boards: Path) -> Iterator[None]:
    yield
    assert list(folder_for_boards.iterdir()) == []


class Sender:
    """The application that sends what MODULE runs."""

    def __init__(self, application: Application) -> None:
        @actor
        async def fine(number: int) -> None: ...

        @actor(max_retries=0)
        def wrong() -> None: ...

        self._fine, self._wrong, self.application = fine, wrong, application

    def fine(self, count: int) -> None:
        """Send jobs that succeed."""
        self._fine.send_many([((number,), {}) for number in range(count)])

    def later(self) -> str:
        """Send one that is due in an hour; returns its id."""
        return self._fine.send_with_options(args=(0,), delay=3_600_000).job_id

    def wrong(self, count: int) -> None:
        """Send jobs that fail."""
        self._wrong.send_many([((), {})] * count)


@contextmanager
def sending(place: Place) -> Iterator[Sender]:
    with running(place.configuration) as application:
        yield Sender(application)


@pytest.mark.parametrize("how", ["fork", "--use-spawn"])
def test_the_jobs_of_all_processes_count(rabbit_alone: Place, start: Start, how: str) -> None:
    with sending(rabbit_alone) as send:
        send.fine(100)
    worker = start(rabbit_alone, "-p", "2", "--limit", "100", *([how] if how != "fork" else []))
    worker.wait_for_line(r"stop limit reached, draining: 100 of 100 jobs")
    assert worker.wait() == 0


def test_failures_count_and_successes_do_not(rabbit_alone: Place, start: Start) -> None:
    worker = start(rabbit_alone, "-p", "1", "--failure-limit", "3")
    with sending(rabbit_alone) as send:
        send.fine(20)
        send.wrong(3)
    worker.wait_for_line(r"stop limit reached, draining: 3 of 3 failed jobs")
    assert worker.wait() == 0


def test_time_is_a_limit(rabbit_alone: Place, start: Start) -> None:
    worker = start(rabbit_alone, "-p", "1", "--time-limit", "0.5")
    worker.wait_for_line(r"stop limit reached, draining: 1 of 0.5 seconds")
    assert worker.wait() == 0


def test_memory_is_a_limit(rabbit_alone: Place, start: Start) -> None:
    worker = start(rabbit_alone, "-p", "1", "--memory-limit", "10M")
    worker.wait_for_line(r"stop limit reached, draining: \d+ of 10 MiB of memory")
    assert worker.wait() == 0


def test_it_stops_when_nothing_is_left_to_do(rabbit_alone: Place, start: Start) -> None:
    with sending(rabbit_alone) as send:
        send.fine(100)
        worker = start(rabbit_alone, "-p", "2", "--stop-when-empty")
        worker.wait_for_line(r"stop limit reached, draining: the queues are empty")
        assert worker.wait() == 0
        runtime = send.application.broker.runtime
        depth = runtime.io.call(runtime.transport.depth("default"))
    assert depth is not None
    assert depth.ready == 0


def test_jobs_for_later_do_not_hold_it(place_with_rows: Place, start: Start) -> None:
    with sending(place_with_rows) as send:
        send.fine(20)
        later = send.later()
        worker = start(place_with_rows, "-p", "2", "--stop-when-empty")
        worker.wait_for_line(r"stop limit reached, draining: the queues are empty")
        assert worker.wait() == 0
        assert len(jobs.find(state="succeeded").jobs) == 20
        assert [job.id for job in jobs.find(state="scheduled").jobs] == [later]


def test_a_limit_counts_anew_after_a_reload(rabbit_alone: Place, start: Start) -> None:
    worker = start(rabbit_alone, "-p", "1", "--limit", "20")
    with sending(rabbit_alone) as send:
        worker.wait_for_line(r"ready for action")
        send.fine(10)
        reloaded = worker.mark()
        os.kill(worker.pid, signal.SIGHUP)
        worker.wait_for_line(r"is booting up", since=reloaded)
        send.fine(20)
    worker.wait_for_line(r"stop limit reached, draining: 2\d of 20 jobs", since=reloaded)
    assert worker.wait() == 0


def test_a_broken_configuration_is_told_once(rabbit_alone: Place, start: Start) -> None:
    broken = Place("broken", {**rabbit_alone.configuration, "worker": {"lease": "1ms"}})
    worker = start(broken, "-p", "2")
    assert worker.wait() == 2
    assert worker.text.count("worker.lease: must be at least 1s, not 1ms") == 1


def test_a_module_that_cannot_be_imported_is_exit_code_2(rabbit_alone: Place, start: Start) -> None:
    worker = start(rabbit_alone, "no_such_module", "-p", "1", "--limit", "1")
    assert worker.wait() == 2
    assert "No module named 'no_such_module'" in worker.text
