"""Blocking work beside a loop."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from jq_actors.concurrency.in_thread import in_thread

WAIT = 20.0


async def test_it_runs_elsewhere_and_its_end_comes_back() -> None:
    def fail() -> None:
        raise SystemExit(3)

    assert await in_thread(threading.get_ident) != threading.get_ident()
    with pytest.raises(SystemExit):
        await in_thread(fail)


async def test_a_cancelled_caller_does_not_wait_and_the_work_goes_on() -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait(WAIT)
        ended.set()

    task = asyncio.create_task(in_thread(work))
    assert await asyncio.to_thread(begun.wait, WAIT)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    assert await asyncio.to_thread(ended.wait, WAIT)


def test_work_that_outlives_its_loop_harms_nobody() -> None:
    go_on = threading.Event()

    async def leave() -> threading.Thread:
        task = asyncio.create_task(in_thread(lambda: go_on.wait(WAIT)))
        await asyncio.sleep(0)
        task.cancel()
        [thread] = [thread for thread in threading.enumerate() if thread.name == "jq-work"]
        return thread

    thread = asyncio.run(leave())
    go_on.set()
    thread.join(WAIT)  # an exception in it would be a warning, and so an error
    assert not thread.is_alive()


AT_EXIT = """
import asyncio, atexit
from jq_actors.concurrency.in_thread import in_thread
atexit.register(lambda: print(asyncio.run(in_thread(lambda: "done"))))
"""


def test_it_works_at_the_exit_of_a_process() -> None:
    done = subprocess.run([sys.executable, "-c", AT_EXIT], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "done\n", done.stderr
