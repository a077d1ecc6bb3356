"""A loop in a thread: calls from outside, whatever its tasks raise, and its end with calls under way."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from jq_actors.concurrency.loops import LoopThread
from jq_actors.errors import RuntimeStateError
from tests.support.waiting import eventually_sync

WAIT = 10.0
"""Seconds after which a call that should have ended is taken for one that never will."""


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    thread = LoopThread("under test")
    thread.start()
    yield thread
    thread.stop()


async def answer(value: int) -> int:
    await asyncio.sleep(0)
    return value


async def wait_for_ever() -> None:
    await asyncio.get_running_loop().create_future()


def test_a_call_runs_on_the_loop_and_returns_or_raises_here(loop: LoopThread) -> None:
    async def where() -> int:
        return threading.get_ident()

    async def fail() -> None:
        raise ValueError("there")

    assert loop.call(where()) == loop.ident != threading.get_ident()
    with pytest.raises(ValueError, match="there"):
        loop.call(fail())


def test_a_blocking_call_on_the_loop_itself_is_refused(loop: LoopThread) -> None:
    async def call_itself() -> int:
        return loop.call(answer(1))

    with pytest.raises(RuntimeStateError, match="`_async` twin"):
        loop.call(call_itself(), WAIT)


def test_a_call_that_takes_too_long_goes_on(loop: LoopThread) -> None:
    go_on, ended = threading.Event(), threading.Event()

    async def long() -> None:
        await asyncio.to_thread(go_on.wait)
        ended.set()

    with pytest.raises(TimeoutError):
        loop.call(long(), 0.01)
    go_on.set()
    assert ended.wait(WAIT)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_what_ends_processes_ends_no_loop(
    loop: LoopThread, kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """asyncio lets these two out of any task: one that an actor starts must not stop all other jobs."""

    async def leave() -> None:
        raise kind("out")

    async def start_it() -> str:
        task = asyncio.create_task(leave())
        with suppress(kind):
            await task
        return "still here"

    with caplog.at_level(logging.ERROR, "asyncio"):
        assert loop.call(start_it(), WAIT) == "still here"
        assert loop.call(answer(2), WAIT) == 2
    assert f"{kind.__name__} was raised in a task of the under test loop" in caplog.text


def test_a_task_that_stops_the_loop_does_not_end_it(loop: LoopThread) -> None:
    async def stop() -> None:
        asyncio.get_running_loop().stop()

    loop.call(stop(), WAIT)
    assert loop.call(answer(3), WAIT) == 3


async def test_a_coroutine_of_another_loop_gets_its_answer_and_its_error(loop: LoopThread) -> None:
    async def fail() -> None:
        raise ValueError("there")

    assert await loop.run(answer(4)) == 4
    with pytest.raises(ValueError, match="there"):
        await loop.run(fail())


@pytest.mark.parametrize("cancel", [False, True], ids=["goes on", "is cancelled too"])
async def test_what_a_cancelled_caller_has_asked_for(loop: LoopThread, cancel: bool) -> None:
    begun, ended, ends = threading.Event(), threading.Event(), list[str]()
    go_on = asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await go_on.wait()
            ends.append("ended")
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise
        finally:
            ended.set()

    caller = asyncio.create_task(loop.run(work(), cancel=cancel))
    await asyncio.to_thread(begun.wait, WAIT)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    loop.loop.call_soon_threadsafe(go_on.set)  # behind the cancel, if there is one
    assert await asyncio.to_thread(ended.wait, WAIT)
    assert ends == ["cancelled" if cancel else "ended"]


# -- its end


def test_stopping_cancels_what_runs_and_lets_it_clean_up() -> None:
    loop, cleaned = LoopThread("under test"), threading.Event()
    loop.start()
    begun = threading.Event()

    async def work() -> None:
        begun.set()
        try:
            await wait_for_ever()
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    call = loop.submit(work())
    assert begun.wait(WAIT)
    loop.stop()
    assert cleaned.is_set()
    assert call.done()
    assert not loop.is_alive
    loop.stop()  # a second time: nothing


def test_a_thread_that_waits_for_a_stopped_loop_is_told() -> None:
    loop, told = LoopThread("under test"), list[Exception]()
    loop.start()
    begun = threading.Event()

    async def work() -> None:
        begun.set()
        await wait_for_ever()

    def wait() -> None:
        try:
            loop.call(work())
        except RuntimeStateError as error:
            told.append(error)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    assert begun.wait(WAIT)
    loop.stop()
    thread.join(WAIT)
    assert not thread.is_alive()
    assert "in the middle of this call" in str(told[0])


async def test_a_coroutine_that_waits_for_a_stopped_loop_is_told_and_not_cancelled() -> None:
    loop, begun = LoopThread("under test"), threading.Event()
    await asyncio.to_thread(loop.start)

    async def work() -> None:
        begun.set()
        await wait_for_ever()

    caller = asyncio.create_task(loop.run(work()))
    await asyncio.to_thread(begun.wait, WAIT)
    await asyncio.to_thread(loop.stop)
    with pytest.raises(RuntimeStateError, match="in the middle of this call"):
        await asyncio.wait_for(caller, WAIT)


def test_no_call_waits_for_ever_however_it_meets_the_stop() -> None:
    """Four threads that call and call, and each of sixty loops stopped at some moment of theirs."""
    for _ in range(60):
        loop, called = LoopThread("under test"), threading.Event()
        loop.start()
        threads = [threading.Thread(target=_call_until_refused, args=(loop, called), daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert called.wait(WAIT)
        loop.stop()
        for thread in threads:
            thread.join(WAIT)
            assert not thread.is_alive(), "a call waits for ever"


def _call_until_refused(loop: LoopThread, called: threading.Event) -> None:
    with suppress(RuntimeStateError):
        while True:
            loop.call(answer(0))
            called.set()


def test_after_the_stop_a_call_is_refused_and_its_coroutine_closed() -> None:
    loop = LoopThread("under test")
    loop.start()
    loop.stop()
    with pytest.raises(RuntimeStateError, match="was stopped"):  # an unclosed coroutine is a warning, and so an error
        loop.call(answer(5))


def test_a_loop_that_was_never_started_is_closed_too() -> None:
    loop = LoopThread("under test")
    loop.stop()
    assert loop.loop.is_closed()


def test_a_loop_cannot_stop_itself(loop: LoopThread) -> None:
    async def stop() -> None:
        loop.stop()

    with pytest.raises(RuntimeStateError, match="from within"):
        loop.call(stop(), WAIT)
    assert loop.call(answer(6), WAIT) == 6


def test_a_task_that_does_not_let_itself_be_stopped_is_left_to_itself_not_destroyed() -> None:
    loop, begun, release, ends = LoopThread("under test"), threading.Event(), threading.Event(), list[str]()
    loop.start()

    async def stubborn() -> None:
        begun.set()
        while not release.is_set():
            with suppress(asyncio.CancelledError):
                await asyncio.to_thread(release.wait, WAIT)
        ends.append("its own end")

    call = loop.submit(stubborn())
    assert begun.wait(WAIT)
    loop.stop(timeout=0.05)
    with pytest.raises(RuntimeStateError):
        call.result(WAIT)
    assert loop.is_alive
    release.set()
    eventually_sync(lambda: not loop.is_alive, WAIT, "the end of the loop")
    assert ends == ["its own end"]


@pytest.mark.blocking_allowed
def test_a_blocked_loop_is_left_behind_and_its_callers_are_told() -> None:
    loop, release, begun = LoopThread("under test"), threading.Event(), threading.Event()
    loop.start()

    async def block() -> None:
        begun.set()
        release.wait(WAIT)

    call = loop.submit(block())
    assert begun.wait(WAIT)
    loop.stop(timeout=0.05)
    with pytest.raises(RuntimeStateError):
        call.result(WAIT)
    release.set()


def test_where_no_thread_can_start_the_loop_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """As at the end of the interpreter, from Python 3.12 on."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    loop = LoopThread("under test")
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeStateError, match="cannot start: can't create new thread"):
        loop.start()
    assert loop.loop.is_closed()
