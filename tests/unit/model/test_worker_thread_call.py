"""A call of a sync actor in a worker thread: an interrupt hits inside it or never, at most once, and only this job."""

from __future__ import annotations

import queue
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from dramatiq.middleware import Interrupt, Shutdown, SkipMessage, TimeLimitExceeded

from jq_actors.model.worker_thread_call import WorkerThreadCall

WAIT = 20.0
RACES = 10_000


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """Threads take turns after a few instructions, so that a race of two is really run."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_it_calls_with_the_arguments_and_passes_on_value_and_error() -> None:
    def fail() -> None:
        raise ValueError("its own")

    assert WorkerThreadCall().call(lambda a, b: (a, b), (1,), {"b": 2}) == (1, 2)
    with pytest.raises(ValueError, match="its own"):
        WorkerThreadCall().call(fail, (), {})


def test_an_interrupt_before_the_call_withdraws_the_job() -> None:
    thread_call, calls = WorkerThreadCall(), list[int]()
    assert thread_call.interrupt() is True
    assert thread_call.is_withdrawn
    with pytest.raises(SkipMessage):
        thread_call.call(calls.append, (1,), {})
    assert calls == []


def test_an_interrupt_after_the_call_hits_nobody() -> None:
    thread_call = WorkerThreadCall()
    thread_call.call(lambda: None, (), {})
    assert thread_call.interrupt() is True
    _instructions()


@pytest.mark.parametrize("kind", [TimeLimitExceeded, Shutdown])
def test_an_interrupt_during_the_call_is_raised_in_its_thread_once(kind: type[Interrupt]) -> None:
    thread_call, caught = WorkerThreadCall(), list[BaseException]()
    begun, hit, interrupted_again = threading.Event(), threading.Event(), threading.Event()
    thread_call.interrupt_with = kind

    def actor() -> str:
        begun.set()
        with pytest.raises(Interrupt) as interrupt:
            _instructions_for_ever()
        caught.append(interrupt.value)
        hit.set()
        interrupted_again.wait(WAIT)
        _instructions()
        return "its own end"

    ends: queue.SimpleQueue[Any] = queue.SimpleQueue()
    thread = threading.Thread(target=lambda: ends.put(thread_call.call(actor, (), {})), daemon=True)
    thread.start()
    assert begun.wait(WAIT)
    assert thread_call.interrupt() is False
    assert hit.wait(WAIT)
    assert thread_call.interrupt() is False
    interrupted_again.set()
    assert ends.get(timeout=WAIT) == "its own end"
    assert [type(interrupt) for interrupt in caught] == [kind]


class _StruckLock:
    """A lock at which somebody else's interrupt strikes: when it is taken for the second time."""

    def __init__(self) -> None:
        self._lock, self._taken = threading.Lock(), 0

    def __enter__(self) -> None:
        self._taken += 1
        if self._taken == 2:
            raise Shutdown
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_the_thread_is_released_even_when_the_release_is_interrupted() -> None:
    """By Dramatiq's own middleware for example; a later interrupt of ours would hit the thread's next job."""
    thread_call = WorkerThreadCall()
    thread_call._lock = _StruckLock()  # type: ignore[assignment]
    with pytest.raises(Shutdown):
        thread_call.call(lambda: None, (), {})
    assert thread_call.interrupt() is True
    _instructions()


def test_an_interrupt_that_is_not_yet_delivered_when_the_actor_returns_is_taken_back() -> None:
    """The last thing that the actor does is to interrupt itself, in C: it shows at the earliest in the code around."""
    for _ in range(1000):
        thread_call = WorkerThreadCall()
        with suppress(TimeLimitExceeded):  # it may come while still inside
            thread_call.call(thread_call.interrupt, (), {})
        _instructions()


@pytest.mark.usefixtures("quick_switches")
def test_an_interrupt_never_hits_after_the_call() -> None:
    """Ten thousand calls, each raced by another thread's interrupt: what comes late comes not at all."""
    thread_calls: queue.SimpleQueue[WorkerThreadCall | None] = queue.SimpleQueue()
    ends: Counter[str] = Counter()
    late: list[BaseException] = []

    def interrupt_all() -> None:
        while (thread_call := thread_calls.get()) is not None:
            thread_call.interrupt()

    def work() -> None:
        for number in range(RACES):
            try:
                ends[_raced(thread_calls, number)] += 1
                _instructions()
            except Interrupt as interrupt:
                late.append(interrupt)
        thread_calls.put(None)

    threads = [threading.Thread(target=target, daemon=True) for target in (interrupt_all, work)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT * 3)
        assert not thread.is_alive(), "a lock was left taken"
    assert late == []
    assert sum(ends.values()) == RACES
    assert ends["returned"]
    assert ends["interrupted"], f"no race was run: {ends}"


def _raced(thread_calls: queue.SimpleQueue[WorkerThreadCall | None], number: int) -> str:
    thread_call = WorkerThreadCall()
    thread_calls.put(thread_call)
    try:
        thread_call.call(_instructions, (number % 50,), {})
    except Interrupt:
        return "interrupted"
    except SkipMessage:
        return "withdrawn"
    return "returned"


def _instructions(count: int = 50) -> int:
    """Enough of the interpreter's instructions for a pending interrupt to be raised."""
    return sum(abs(number) for number in range(count))


def _instructions_for_ever() -> None:
    while True:
        _instructions()
