"""The two loops: thousands of coroutines in few threads, and an actor that blocks harms nobody but its like."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from jq_actors import actor
from jq_actors.events import BrokerDisconnected, JobFinished, LoopBlocked
from tests.support.application import Place, running

pytestmark = pytest.mark.blocking_allowed  # an actor that blocks the actor loop is what is tested


def test_thousands_of_coroutines_in_one_process(embedded_memory: Place) -> None:
    """A33. None of 5,000 jobs ends before all of them run."""
    configuration = {**embedded_memory.configuration, "queues": {"default": {"concurrency": 5000}}}
    at_once = most = 0
    gate = asyncio.Event()
    loops: set[asyncio.AbstractEventLoop] = set()

    with running(configuration) as app:

        @actor
        async def waits() -> None:
            nonlocal at_once, most
            loops.add(asyncio.get_running_loop())
            at_once += 1
            most = max(most, at_once)
            await gate.wait()
            at_once -= 1

        ended: list[JobFinished] = []
        app.broker.events.subscribe(JobFinished, ended.append)
        with app.worker():
            waits.send_many([((), {}) for _ in range(5000)])
            app.wait(lambda: at_once == 5000, "all of them at once", timeout=30)
            threads = threading.active_count()
            [loop] = loops
            loop.call_soon_threadsafe(gate.set)
            app.wait(lambda: len(ended) == 5000, "their ends", timeout=60)

    assert most == 5000
    assert threads <= 50


def test_a_blocked_actor_loop_is_shown_and_costs_no_connection(rabbit_rows: Place) -> None:
    """A32. The actor sleeps longer than twice the heartbeat; broker and leases do not notice."""
    broker = {**rabbit_rows.configuration["broker"], "heartbeat": "1s"}
    worker = {"lease": "2s", "block_warning": "500ms"}
    with running({**rabbit_rows.configuration, "broker": broker, "worker": worker}) as app:
        app.record(LoopBlocked, BrokerDisconnected, JobFinished)
        runs: list[str] = []

        @actor
        async def blocks() -> None:
            runs.append("blocks")
            time.sleep(8)  # noqa: ASYNC251 - the very mistake that is tested

        @actor
        def synchronous() -> None:
            runs.append("sync")

        with app.worker():
            blocks.send()
            app.wait(lambda: app.of(LoopBlocked), "the warning")
            app.wait(lambda: app.of(JobFinished), "its end", timeout=30)

        assert "time.sleep(8)" in app.of(LoopBlocked)[0].stack
        assert app.of(BrokerDisconnected) == []
        assert [event.state for event in app.of(JobFinished)] == ["succeeded"]
        assert runs.count("blocks") == 1


def test_an_actor_s_own_timeout_error_is_its_own(embedded_memory: Place) -> None:
    """A33: a job that raises TimeoutError fails once (dramatiq#791)."""
    with running(embedded_memory.configuration) as app:
        app.record(JobFinished)

        @actor(max_retries=0)
        async def raises() -> None:
            raise TimeoutError("mine")

        @actor(max_retries=0)
        async def cancels_itself() -> None:
            raise asyncio.CancelledError

        with app.worker():
            raises.send()
            cancels_itself.send()
            app.wait(lambda: len(app.of(JobFinished)) == 2, "both ends")

    assert [event.state for event in app.of(JobFinished)] == ["failed", "failed"]
