"""Worker processes are real ones: their output is waited for, their signals are real, nothing is left."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from tests.conftest import StartWorker
from tests.support.waiting import eventually_sync

PARENT = """
import os, signal, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; print('child', flush=True); time.sleep(600)"])
signal.signal(signal.SIGTERM, lambda *_: (print("draining"), sys.exit(7)))
print("variable", os.environ.get("SOME_VARIABLE"))
signal.pause()
"""


@pytest.fixture
def module(tmp_path: Path) -> str:
    (tmp_path / "parent.py").write_text(PARENT)
    return "parent"


def test_it_runs_in_the_given_environment_and_ends_by_signal(start_worker: StartWorker, module: str) -> None:
    worker = start_worker("python", "-m", module, env={"SOME_VARIABLE": "given"})
    assert worker.wait_for_line(r"^variable (\w+)$")[1] == "given"
    worker.wait_for_line("^child$")
    mark = worker.mark()
    worker.terminate()
    assert worker.wait(5) == 7
    assert worker.seen("draining", since=mark)
    assert not worker.seen("variable", since=mark)


def test_close_leaves_no_child(start_worker: StartWorker, module: str) -> None:
    worker = start_worker("python", "-m", module)
    worker.wait_for_line("^child$")
    (child,) = worker.children()
    worker.close()
    assert not worker.running
    eventually_sync(lambda: not _lives(child), 5, "the child to be gone")


def test_one_child_is_killed_alone(start_worker: StartWorker, module: str) -> None:
    worker = start_worker("python", "-m", module)
    worker.wait_for_line("^child$")
    child = worker.kill_child()
    eventually_sync(lambda: not _lives(child), 5, "the child to be gone")
    assert worker.running


def test_stopped_and_continued_as_a_whole(start_worker: StartWorker, module: str) -> None:
    worker = start_worker("python", "-m", module)
    worker.wait_for_line("^child$")
    pids = [worker.pid, *worker.children()]
    worker.stop_signal()
    eventually_sync(lambda: {psutil.Process(pid).status() for pid in pids} == {psutil.STATUS_STOPPED}, 5, "stop")
    worker.cont()
    worker.terminate()
    assert worker.wait(5) == 7


def test_waiting_for_a_line_of_a_dead_process_says_what_it_printed(start_worker: StartWorker) -> None:
    worker = start_worker("python", "-c", "print('last words')")
    with pytest.raises(AssertionError, match=r"ended with 0 before printing 'never'[\s\S]*last words"):
        worker.wait_for_line("never", timeout=20)


def _lives(pid: int) -> bool:
    # An orphan that nobody reaps (a container without an init) stays a zombie.
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
