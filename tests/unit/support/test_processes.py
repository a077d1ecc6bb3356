"""No process and no folder of a test run outlives it by long."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from tests.support.processes import RUN_MARK, free_port, run_folder, spawn, sweep
from tests.support.waiting import eventually_sync

WAIT = "import signal; signal.pause()"

# Starts a process as tests do, says its pid, and hangs: what an aborted pytest looks like to it.
PYTEST = f"""
import signal, sys
from pathlib import Path
from tests.support.processes import spawn
print(spawn([sys.executable, "-c", {WAIT!r}], env={{}}, output=Path("output")).pid, flush=True)
signal.pause()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
def test_a_process_dies_with_the_pytest_that_started_it(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", PYTEST]
    with subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        pid = int(run.stdout.readline())
        assert _lives(pid)
        # Until it has become the command, it has not asked the kernel for that yet.
        eventually_sync(lambda: psutil.Process(pid).cmdline() == [sys.executable, "-c", WAIT], 5, "the command")
        run.send_signal(signal.SIGKILL)
    eventually_sync(lambda: not _lives(pid), 5, "the kernel to kill the orphan")


def test_a_sweep_ends_what_runs_that_are_gone_left_behind_and_nothing_else(tmp_path: Path) -> None:
    gone = _pid_of_nobody()
    left = Path(tempfile.mkdtemp(prefix=f"jqt-{gone}-mq-"))
    ours = run_folder("test")
    orphan = subprocess.Popen([sys.executable, "-c", WAIT], env={RUN_MARK: str(gone)})
    child = spawn([sys.executable, "-c", WAIT], env={}, output=tmp_path / "output")
    try:
        # Until it has become the command it still shows the environment of this process.
        eventually_sync(lambda: psutil.Process(orphan.pid).environ().get(RUN_MARK) == str(gone), 5, "the orphan")
        sweep()
        assert orphan.wait(5) == -signal.SIGKILL
        assert not left.exists()
        assert child.poll() is None
        assert ours.exists()
    finally:
        for process in (orphan, child):
            process.kill()
            process.wait()
        ours.rmdir()


def test_a_free_port_is_outside_of_the_ephemeral_range() -> None:
    assert all(15_000 <= free_port() < 30_000 for _ in range(20))


def _lives(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def _pid_of_nobody() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        return process.pid
