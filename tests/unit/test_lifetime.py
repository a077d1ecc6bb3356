"""The two ends of a process: its exit, and a fork."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref

import pytest

from jq_actors import lifetime

AT_EXIT = """
import atexit
from jq_actors import lifetime

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


def test_watching_keeps_nobody_alive() -> None:
    watched = Fork()
    gone = weakref.ref(watched)
    lifetime.watch(watched)
    del watched
    gc.collect()
    assert gone() is None
