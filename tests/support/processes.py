"""Processes of a test run: how they are started, and how none of them outlives it.

Three nets: whoever starts a process stops it; the kernel kills it when pytest dies (Linux, ``setpriv``); and
a run begins by ending what an earlier, aborted one left behind (`sweep`).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

RUN_MARK = "JQ_TEST_RUN_PID"
"""In the environment of every process that tests start: the pid of their pytest."""

# The kernel's parent-death signal fires when the starting *thread* ends, so one thread that lives as long
# as the interpreter starts everything.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="test-process-starter")


def spawn(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    output: Path,
    user: str | None = None,
    cwd: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start ``command`` in a session of its own; its output is appended to ``output``.

    The pid of the result is the command's own. ``user``: run as that one (only root can).
    """
    with output.open("ab") as sink:
        return _starter.submit(
            subprocess.Popen,
            [*_wrapper(user, dies_with_us=True), *command],
            env={**env, RUN_MARK: str(os.getpid())},
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            start_new_session=True,
        ).result()


def run_as(user: str | None, command: Sequence[str], *, env: Mapping[str, str], timeout: float) -> str:
    """Run ``command`` and return its output.

    Raises:
      RuntimeError: it failed; holds its output.
    """
    done = subprocess.run(
        [*_wrapper(user, dies_with_us=False), *command],
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed with exit code {done.returncode}:\n{done.stdout}")
    return done.stdout


def end(process: subprocess.Popen[bytes], sig: signal.Signals, timeout: float) -> int:
    """Signal ``process`` and wait for it; after ``timeout`` seconds its whole session is killed."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(sig)
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        kill_session(process)
        return process.wait(timeout)


def kill_session(process: subprocess.Popen[bytes]) -> None:
    """Send SIGKILL to ``process`` and everything it started in its session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def run_folder(kind: str) -> Path:
    """A fresh folder with a path short enough for unix sockets; its owner removes it, or a later `sweep`."""
    return Path(tempfile.mkdtemp(prefix=f"{_FOLDER}-{os.getpid()}-{kind}-"))


def free_port() -> int:
    """Find a port that nobody listens on.

    Below the ephemeral range: an outgoing connection must not take it while the server is down, and a client
    that dials a dead port of that range may even reach itself.
    """
    for _ in range(200):
        port = 15000 + secrets.randbelow(15000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("No free port between 15000 and 30000.")


def sweep() -> None:
    """End the processes and remove the folders of test runs whose pytest is gone."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            owner = process.environ().get(RUN_MARK)
            if owner is not None and not psutil.pid_exists(int(owner)):
                process.kill()
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}-*-*"):
        if not psutil.pid_exists(int(folder.name.split("-")[1])):
            shutil.rmtree(folder, ignore_errors=True)


_FOLDER = "jqt"


def _wrapper(user: str | None, *, dies_with_us: bool) -> list[str]:
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return [] if user is None else ["su", user, "-s", "/bin/sh", "-c", 'exec "$0" "$@"', "--"]
    options = ["--pdeathsig", "KILL"] if dies_with_us else []
    if user is not None:
        options += ["--reuid", user, "--regid", user, "--clear-groups"]
    return [setpriv, *options, "--"] if options else []
