"""Worker processes of a test: the real commands in real processes, which get real signals."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from .processes import kill_session, spawn
from .waiting import eventually_sync

ROOT = Path(__file__).resolve().parents[2]
"""The repository."""

QUICK = {"dramatiq_worker_timeout": "50"}
"""Milliseconds after which Dramatiq's threads check whether to stop. With its default, a second, each worker would
need two seconds to end."""


class WorkerProcess:
    """One process, from its start to `close`. Its output goes to a file, which the waiting reads.

    ``command``: a console script of this environment with arguments (``["jq-actors", "worker", "myjobs"]``)
    or the interpreter (``["python", "-m", "myjobs"]``). The environment is ``env`` over `QUICK` over that of the
    tests; modules are found in ``cwd`` and in the repository.
    """

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path, output: Path) -> None:
        self.command = tuple(command)
        self.output = output
        output.touch()
        python_path = os.pathsep.join((str(cwd), str(ROOT)))
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": python_path, **QUICK, **env}
        self._process = spawn(_resolved(command), env=environment, output=output, cwd=cwd)

    @property
    def pid(self) -> int:
        """The pid of the command itself; for the ``dramatiq`` command that is the parent."""
        return self._process.pid

    @property
    def text(self) -> str:
        """Everything that the command and its children have printed."""
        return self.output.read_text(errors="replace")

    def mark(self) -> int:
        """Where the output ends now. Pass it as ``since`` to look only at later output."""
        return len(self.text)

    def seen(self, pattern: str, since: int = 0) -> re.Match[str] | None:
        """The first match of ``pattern`` (a regular expression, ``^$`` per line), if it was printed."""
        return re.compile(pattern, re.MULTILINE).search(self.text, since)

    def wait_for_line(self, pattern: str, timeout: float = 30.0, since: int = 0) -> re.Match[str]:
        """Wait until ``pattern`` is printed. It blocks: in an async test, wait for `seen` with `eventually`.

        Raises:
          AssertionError: not in time, or the process ended before; with what it printed.
        """

        def look() -> re.Match[str] | None:
            ended = self._process.poll() is not None
            found = self.seen(pattern, since)
            if found is None and ended:
                raise AssertionError(
                    f"{self} ended with {self._process.returncode} before printing {pattern!r}:\n{self.text}"
                )
            return found

        try:
            return eventually_sync(look, timeout, f"{pattern!r} from {self}")
        except AssertionError as error:
            error.add_note(self.text)
            raise

    def children(self) -> list[int]:
        """The pids of its living child processes, of all generations."""
        try:
            return [child.pid for child in psutil.Process(self.pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def terminate(self) -> None:
        """Send SIGTERM to the command: drain."""
        self._process.send_signal(signal.SIGTERM)

    def interrupt(self) -> None:
        """Send SIGINT to the command."""
        self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """Send SIGKILL to the command and everything it started, as if the machine were gone."""
        kill_session(self._process)
        self._process.wait()

    def kill_child(self, index: int = 0) -> int:
        """Send SIGKILL to one child only; returns its pid."""
        pid = self.children()[index]
        os.kill(pid, signal.SIGKILL)
        return pid

    def stop_signal(self) -> None:
        """Send SIGSTOP to the command and everything it started; `cont` ends the pause."""
        os.killpg(self.pid, signal.SIGSTOP)

    def cont(self) -> None:
        """Send SIGCONT, which ends the pause."""
        os.killpg(self.pid, signal.SIGCONT)

    @property
    def running(self) -> bool:
        """Whether the command itself is running."""
        return self._process.poll() is None

    def wait(self, timeout: float = 30.0) -> int:
        """Wait until the command ends; returns its exit code.

        Raises:
          AssertionError: it still runs after ``timeout`` seconds; with what it printed.
        """
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self} still runs after {timeout:g} s:\n{self.text}") from None

    def close(self) -> None:
        """Kill the command and everything it started that is still running."""
        self.kill()

    def __str__(self) -> str:
        return f"`{' '.join(self.command)}` (pid {self.pid})"


def _resolved(command: Sequence[str]) -> list[str]:
    program, *arguments = command
    if program == "python":
        return [sys.executable, *arguments]
    script = Path(sys.executable).parent / program
    return [str(script) if script.exists() else program, *arguments]
