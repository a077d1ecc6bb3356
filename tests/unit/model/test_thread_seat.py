"""A sync actor's seat: an interrupt hits inside of its call or never, at most once, and only this job."""

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

from jq_actors.model.thread_seat import ThreadSeat

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

    assert ThreadSeat().call(lambda a, b: (a, b), (1,), {"b": 2}) == (1, 2)
    with pytest.raises(ValueError, match="its own"):
        ThreadSeat().call(fail, (), {})


def test_an_interrupt_before_the_call_withdraws_the_job() -> None:
    seat, calls = ThreadSeat(), list[int]()
    assert seat.interrupt() is True
    assert seat.is_withdrawn
    with pytest.raises(SkipMessage):
        seat.call(calls.append, (1,), {})
    assert calls == []


def test_an_interrupt_after_the_call_hits_nobody() -> None:
    seat = ThreadSeat()
    seat.call(lambda: None, (), {})
    assert seat.interrupt() is True
    _instructions()


@pytest.mark.parametrize("kind", [TimeLimitExceeded, Shutdown])
def test_an_interrupt_during_the_call_is_raised_in_its_thread_once(kind: type[Interrupt]) -> None:
    seat, caught = ThreadSeat(), list[BaseException]()
    begun, hit, interrupted_again = threading.Event(), threading.Event(), threading.Event()
    seat.interrupt_with = kind

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
    thread = threading.Thread(target=lambda: ends.put(seat.call(actor, (), {})), daemon=True)
    thread.start()
    assert begun.wait(WAIT)
    assert seat.interrupt() is False
    assert hit.wait(WAIT)
    assert seat.interrupt() is False
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


def test_a_seat_is_left_even_when_the_leaving_is_interrupted() -> None:
    """By Dramatiq's own middleware for example; a later interrupt of ours would hit the thread's next job."""
    seat = ThreadSeat()
    seat._lock = _StruckLock()  # type: ignore[assignment]
    with pytest.raises(Shutdown):
        seat.call(lambda: None, (), {})
    assert seat.interrupt() is True
    _instructions()


def test_an_interrupt_that_is_not_yet_delivered_when_the_actor_returns_is_taken_back() -> None:
    """The last thing that the actor does is to interrupt itself, in C: it shows at the earliest in the code around."""
    for _ in range(1000):
        seat = ThreadSeat()
        with suppress(TimeLimitExceeded):  # it may come while still inside
            seat.call(seat.interrupt, (), {})
        _instructions()


@pytest.mark.usefixtures("quick_switches")
def test_an_interrupt_never_hits_after_the_call() -> None:
    """Ten thousand calls, each raced by another thread's interrupt: what comes late comes not at all."""
    seats: queue.SimpleQueue[ThreadSeat | None] = queue.SimpleQueue()
    ends: Counter[str] = Counter()
    late: list[BaseException] = []

    def interrupt_all() -> None:
        while (seat := seats.get()) is not None:
            seat.interrupt()

    def work() -> None:
        for number in range(RACES):
            try:
                ends[_raced(seats, number)] += 1
                _instructions()
            except Interrupt as interrupt:
                late.append(interrupt)
        seats.put(None)

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


def _raced(seats: queue.SimpleQueue[ThreadSeat | None], number: int) -> str:
    seat = ThreadSeat()
    seats.put(seat)
    try:
        seat.call(_instructions, (number % 50,), {})
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
