"""The two ends of a process: its exit, and a fork."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref

import pytest

from jq_actors.process import lifetime

AT_EXIT = """
import atexit
from jq_actors.process import lifetime

class Broken:
    def close(self): raise RuntimeError("cannot close")
    def forget(self): ...

class Whole:
    def close(self): print("closed")
    def forget(self): ...

kept = [Broken(), Whole(), Broken()]
for one in kept:
    lifetime.watch(one)
atexit.register(lambda: print("an application's own"))
"""


def test_at_the_exit_all_are_closed_whatever_one_of_them_raises_and_after_the_application_s_own() -> None:
    done = subprocess.run([sys.executable, "-c", AT_EXIT], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "an application's own\nclosed\n"
    assert done.stderr.count("RuntimeError: cannot close") == 2
    assert done.returncode == 0


class Fork:
    def __init__(self) -> None:
        self.forgotten = 0

    def close(self) -> None: ...

    def forget(self) -> None:
        self.forgotten += 1


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_only_the_child_of_a_fork_forgets() -> None:
    watched = Fork()
    lifetime.watch(watched)
    child = os.fork()
    if child == 0:
        os._exit(watched.forgotten)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert watched.forgotten == 0


IN_A_CHILD = """
import multiprocessing, os, sys
from jq_actors.process import lifetime

class Watched:
    def close(self): print("closed in the", "parent" if os.getpid() == PARENT else "child", flush=True)
    def forget(self): ...

PARENT, watched = os.getpid(), Watched()
lifetime.watch(watched)

def leave():
    for _ in range(2):
        lifetime.close_with_child()
    sys.exit(7)

lifetime.close_with_child()
child = multiprocessing.get_context("fork").Process(target=leave)
child.start()
child.join()
print("exit code", child.exitcode, flush=True)
"""


def test_a_child_of_multiprocessing_closes_too_once() -> None:
    """As Dramatiq's worker processes are: they end without ``atexit``."""
    done = subprocess.run([sys.executable, "-c", IN_A_CHILD], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines() == ["closed in the child", "exit code 7", "closed in the parent"], done.stderr


def test_watching_keeps_nobody_alive() -> None:
    watched = Fork()
    gone = weakref.ref(watched)
    lifetime.watch(watched)
    del watched
    gc.collect()
    assert gone() is None
