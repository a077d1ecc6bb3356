"""The threads beside a loop: as many as are needed, and none that holds up the end of the process."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref
from concurrent.futures import CancelledError, Future

import pytest

from jq_actors.concurrency.daemon_pool import MOST_THREADS, DaemonPool
from tests.support.waiting import eventually_sync

WAIT = 20.0


def threads_of(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(f"{name}-")]


def test_a_call_returns_or_raises_by_its_future() -> None:
    def fail() -> None:
        raise SystemExit(3)

    pool = DaemonPool("ends")
    assert pool.submit(divmod, 7, 2).result(WAIT) == (3, 1)
    with pytest.raises(SystemExit):
        pool.submit(fail).result(WAIT)
    assert pool.submit(dict, a=1).result(WAIT) == {"a": 1}, "the thread lives on"
    pool.shutdown()


def test_a_free_thread_is_used_again() -> None:
    pool = DaemonPool("again")
    for number in range(50):
        assert pool.submit(abs, -number).result(WAIT) == number
        eventually_sync(lambda: pool._idle._value, WAIT, "the thread to be free")
    assert len(threads_of("again")) == 1
    pool.shutdown()


def test_there_are_as_many_threads_as_calls_at_once_up_to_the_most() -> None:
    pool, release = DaemonPool("most"), threading.Event()
    calls = [pool.submit(release.wait, WAIT) for _ in range(MOST_THREADS + 5)]
    assert len(threads_of("most")) == MOST_THREADS
    release.set()
    assert [call.result(WAIT) for call in calls] == [True] * len(calls)
    pool.shutdown()


def test_a_call_that_is_cancelled_before_its_turn_is_not_made() -> None:
    pool, release, made = DaemonPool("cancelled"), threading.Event(), list[int]()
    busy = [pool.submit(release.wait, WAIT) for _ in range(MOST_THREADS)]
    late: Future[None] = pool.submit(made.append, 1)
    assert late.cancel()
    release.set()
    for call in busy:
        call.result(WAIT)
    assert pool.submit(abs, -1).result(WAIT) == 1
    with pytest.raises(CancelledError):
        late.result(WAIT)
    assert made == []
    pool.shutdown()


def test_a_pool_that_was_shut_takes_no_work_and_its_threads_end() -> None:
    pool, release = DaemonPool("shut"), threading.Event()
    running = pool.submit(release.wait, WAIT)
    pool.shutdown()
    with pytest.raises(RuntimeError, match="was shut"):
        pool.submit(abs, -1)
    release.set()
    assert running.result(WAIT)
    eventually_sync(lambda: not threads_of("shut"), WAIT, "the end of its threads")


def test_an_idle_thread_keeps_nothing_of_its_last_call() -> None:
    class Result: ...

    pool = DaemonPool("keeps")
    call = pool.submit(Result)
    gone = weakref.ref(call.result(WAIT))
    del call

    def is_gone() -> bool:
        gc.collect()
        return gone() is None

    eventually_sync(is_gone, WAIT, "the result to be free")
    pool.shutdown()


STUCK = """
import threading
from jq_actors.concurrency.loops import LoopThread
import asyncio
loop = LoopThread("loop")
loop.start()
begun = threading.Event()
loop.submit(asyncio.wait_for(asyncio.to_thread(lambda: (begun.set(), threading.Event().wait())), 600))
begun.wait()
loop.stop()
print("the end")
"""


def test_a_thread_that_does_not_return_holds_up_no_end_of_a_process() -> None:
    done = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("the end\n", 0), done.stderr
