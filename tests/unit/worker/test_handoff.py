"""The seam with Dramatiq: its own consumer and worker threads run what the handoff gives them."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import PriorityQueue
from typing import Any

import dramatiq
import pytest
from dramatiq.middleware import Shutdown, SkipMessage, TimeLimitExceeded
from dramatiq.worker import ConsumerThread, WorkerThread

from jq_actors.actors.actor import JobActor, actor
from jq_actors.model.command import JobCommand
from jq_actors.model.running_job import RunningJob, current_job, running
from jq_actors.worker.handoff import Handoff, HandoffConsumer, JobProxy
from tests.support.sending import RecordingBroker

WAIT = 20.0


class HandoffBroker(RecordingBroker):
    """A `JobBroker` without a runtime: its consumers come from a handoff."""

    def __init__(self, *middleware: dramatiq.Middleware) -> None:
        super().__init__([])
        for layer in middleware:
            self.add_middleware(layer)
        self.handoff = Handoff()

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 30_000) -> HandoffConsumer:
        return self.handoff.consumer(queue_name, timeout)


@dataclass
class Threads:
    """Dramatiq's threads, as its worker starts them."""

    broker: HandoffBroker
    workers: list[WorkerThread] = field(default_factory=list)
    consumers: dict[str, ConsumerThread] = field(default_factory=dict)

    def start(self, count: int) -> None:
        work_queue: PriorityQueue[Any] = PriorityQueue()
        consumer = ConsumerThread(
            broker=self.broker, queue_name="default", prefetch=1, work_queue=work_queue, worker_timeout=10
        )
        self.consumers["default"] = consumer
        for _ in range(count):
            self.workers.append(
                WorkerThread(broker=self.broker, consumers=self.consumers, work_queue=work_queue, worker_timeout=10)
            )
        for thread in (consumer, *self.workers):
            thread.start()

    def stop(self) -> None:
        for worker in self.workers:
            worker.stop()
        for consumer in self.consumers.values():
            consumer.stop()
        for thread in (*self.workers, *self.consumers.values()):
            thread.join(WAIT)


@contextmanager
def dramatiq_threads(broker: HandoffBroker, count: int = 1) -> Iterator[Threads]:
    threads = Threads(broker)
    threads.start(count)
    try:
        yield threads
    finally:
        threads.stop()


def proxy_for(made: JobActor[..., Any], *args: Any, **options: Any) -> JobProxy:
    command: JobCommand[Any] = JobCommand("default", made.actor_name, args, {}, options)
    return JobProxy(RunningJob(command.job_id, 1, command, made), args, {})


async def in_order(*waits: threading.Event) -> None:
    for wait in waits:
        assert await asyncio.to_thread(wait.wait, WAIT)


async def test_a_worker_thread_runs_it_and_value_or_error_come_back() -> None:
    broker = HandoffBroker()
    seen: list[str] = []

    @actor(broker=broker)
    def double(number: int) -> int:
        seen.append(threading.current_thread().name)
        if number < 0:
            raise ValueError("negative")
        return 2 * number

    with dramatiq_threads(broker):
        good, bad = proxy_for(double, 21), proxy_for(double, -1)
        await broker.handoff.run(good)
        await broker.handoff.run(bad)
    assert (good.result, good.raised) == (42, None)
    assert (bad.result, str(bad.raised)) == (None, "negative")
    assert threading.current_thread().name not in seen


async def test_every_job_of_many_comes_back() -> None:
    broker = HandoffBroker()

    @actor(broker=broker)
    def double(number: int) -> int:
        return 2 * number

    with dramatiq_threads(broker, count=4):
        proxies = [proxy_for(double, number) for number in range(1000)]
        async with asyncio.timeout(WAIT):
            await asyncio.gather(*(broker.handoff.run(proxy) for proxy in proxies))
    assert [proxy.result for proxy in proxies] == [2 * number for number in range(1000)]


@pytest.mark.parametrize("raised", [SystemExit(1), KeyboardInterrupt(), SkipMessage("not today")], ids=repr)
async def test_whatever_it_raises_the_thread_lives_on(raised: BaseException) -> None:
    broker = HandoffBroker()

    @actor(broker=broker)
    def leave(really: bool) -> str:
        if really:
            raise raised
        return "still here"

    with dramatiq_threads(broker):
        left, stayed = proxy_for(leave, True), proxy_for(leave, False)
        await broker.handoff.run(left)
        await broker.handoff.run(stayed)
    assert isinstance(left.raised, type(raised))
    assert stayed.result == "still here"


async def test_one_that_a_foreign_hook_skips_comes_back_as_skipped() -> None:
    class SkipAll(dramatiq.Middleware):
        def before_process_message(self, broker: dramatiq.Broker, message: Any) -> None:
            raise SkipMessage("not today")

    broker, calls = HandoffBroker(SkipAll()), list[int]()

    @actor(broker=broker)
    def note() -> None:
        calls.append(1)

    with dramatiq_threads(broker):
        proxy = proxy_for(note)
        await broker.handoff.run(proxy)
    assert calls == []
    assert isinstance(proxy.raised, SkipMessage)


# -- context variables


async def test_the_job_and_its_context_are_the_thread_s_and_nothing_of_it_stays_there() -> None:
    broker = HandoffBroker()
    tenant = contextvars.ContextVar("tenant", default="nobody")
    trace = contextvars.ContextVar("trace", default="none")
    seen: list[tuple[str, str, str]] = []
    hooked: list[str] = []

    class Hook(dramatiq.Middleware):
        def before_process_message(self, broker: dramatiq.Broker, message: Any) -> None:
            hooked.append(current_job().id)

        def after_process_message(self, broker: dramatiq.Broker, message: Any, **_: Any) -> None:
            hooked.append(current_job().id)

    broker.add_middleware(Hook())

    @actor(broker=broker)
    def note() -> None:
        seen.append((current_job().id, tenant.get(), trace.get()))
        tenant.set("of the actor")  # as structlog's or a framework's variables are set, and not set back

    with dramatiq_threads(broker, count=1):
        ids = []
        for number in range(2):
            trace.set(f"trace {number}")
            command: JobCommand[Any] = JobCommand("default", "note", (), {}, {})
            job = RunningJob(command.job_id, 1, command, note)
            with running(job):
                await broker.handoff.run(JobProxy(job, (), {}))
            ids.append(job.id)
    assert seen == [(ids[0], "nobody", "trace 0"), (ids[1], "nobody", "trace 1")]
    assert hooked == [ids[0], ids[0], ids[1], ids[1]]


async def test_an_actor_that_calls_itself_or_another_calls_a_function() -> None:
    broker = HandoffBroker()

    @actor(broker=broker)
    def countdown(number: int) -> int:
        return 0 if number == 0 else 1 + countdown(number - 1)

    with dramatiq_threads(broker):
        proxy = proxy_for(countdown, 5)
        await broker.handoff.run(proxy)
    assert proxy.result == 5
    assert countdown(3) == 3


# -- interrupts


async def _begun(broker: HandoffBroker, body: Callable[[], Any]) -> tuple[asyncio.Task[None], JobProxy]:
    begun = threading.Event()

    @actor(broker=broker)
    def job() -> Any:
        begun.set()
        return body()

    proxy = proxy_for(job)
    task = asyncio.create_task(broker.handoff.run(proxy))
    await in_order(begun)
    return task, proxy


def _spin() -> None:
    while True:
        sum(abs(number) for number in range(50))


@pytest.mark.parametrize("kind", [TimeLimitExceeded, Shutdown])
async def test_a_cancelled_run_interrupts_its_thread_and_waits_for_it(kind: Any) -> None:
    broker = HandoffBroker()
    cleaned = list[str]()

    def spin() -> None:
        try:
            _spin()
        finally:
            cleaned.append("up")

    with dramatiq_threads(broker) as threads:
        task, proxy = await _begun(broker, spin)
        proxy.job.thread.interrupt_with = kind
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert cleaned == ["up"], "an attempt is not over before its code has stopped"
        assert isinstance(proxy.raised, kind)
        assert all(thread.is_alive() for thread in threads.workers)


async def test_further_cancels_do_not_cut_short_the_wait_for_the_thread() -> None:
    broker = HandoffBroker()
    struck, go_on = threading.Event(), threading.Event()

    def clean_up() -> None:
        try:
            _spin()
        finally:
            struck.set()
            go_on.wait(WAIT)

    with dramatiq_threads(broker):
        task, _ = await _begun(broker, clean_up)
        task.cancel()
        await in_order(struck)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        assert not task.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_job_that_ends_all_the_same_has_its_own_end() -> None:
    broker = HandoffBroker()

    def finish() -> str:
        with pytest.raises(TimeLimitExceeded):
            _spin()
        return "finished"

    with dramatiq_threads(broker):
        task, proxy = await _begun(broker, finish)
        task.cancel()
        await task
    assert (proxy.result, proxy.raised) == ("finished", None)


async def test_a_cancelled_run_that_has_no_thread_yet_is_withdrawn() -> None:
    broker, runs = HandoffBroker(), list[str]()
    release = threading.Event()

    @actor(broker=broker)
    def note(name: str) -> None:
        runs.append(name)

    with dramatiq_threads(broker, count=1):
        busy, _ = await _begun(broker, lambda: release.wait(WAIT))
        withdrawn = proxy_for(note, "withdrawn")
        task = asyncio.create_task(broker.handoff.run(withdrawn))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        release.set()
        await busy
        await broker.handoff.run(proxy_for(note, "next"))
    assert runs == ["next"]


@contextmanager
def _without_gc_callbacks() -> Iterator[None]:
    """Without those of others: hypothesis times collections, and Python swallows what is raised into a callback."""
    callbacks, gc.callbacks[:] = gc.callbacks[:], []
    try:
        yield
    finally:
        gc.callbacks[:] = callbacks


async def test_interrupts_at_any_moment_leave_all_threads_alive_and_all_runs_ended() -> None:
    """Two thousand jobs, most of which raise, each cancelled after another number of steps.

    Outside of the actor's call, where Dramatiq handles what was raised, an interrupt would end its thread.
    """
    broker = HandoffBroker()

    @actor(broker=broker)
    def work(number: int) -> int:
        total = sum(abs(step) for step in range(number % 97))
        if number % 3:
            raise ValueError(total)
        return total

    async def cancel_after(steps: int, number: int) -> None:
        task = asyncio.create_task(broker.handoff.run(proxy_for(work, number)))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=WAIT)
        assert task.done()

    before = sys.getswitchinterval()
    with _without_gc_callbacks(), dramatiq_threads(broker, count=2) as threads:
        sys.setswitchinterval(1e-6)  # threads take turns after a few instructions: races are really run
        try:
            for number in range(2000):
                await cancel_after(number % 23, number)
                assert all(thread.is_alive() for thread in threads.workers)
        finally:
            sys.setswitchinterval(before)


# -- Dramatiq's ways


async def test_jobs_survive_a_pause_of_the_worker() -> None:
    """After it Dramatiq asks for another consumer, and gives that the jobs which the first handed out."""
    broker = HandoffBroker()
    release = threading.Event()
    with dramatiq_threads(broker) as threads:
        task, proxy = await _begun(broker, lambda: release.wait(WAIT))
        threads.consumers["default"].consumer = broker.consume("default")
        release.set()
        async with asyncio.timeout(WAIT):
            await task
    assert proxy.raised is None


async def test_an_eta_of_a_plain_producer_is_not_waited_for_twice() -> None:
    """Dramatiq's consumer thread would hold the message back until then, and send a copy of it."""
    broker = HandoffBroker()

    @actor(broker=broker)
    def note() -> str:
        return "now"

    with dramatiq_threads(broker):
        proxy = proxy_for(note, eta=4_000_000_000_000, other=1)
        async with asyncio.timeout(WAIT):
            await broker.handoff.run(proxy)
    assert proxy.result == "now"
    assert proxy.options == {"other": 1}
    assert broker.sent == []


async def test_both_sides_may_be_the_first_to_name_a_queue() -> None:
    handoff = Handoff()
    consumers = await asyncio.gather(*(asyncio.to_thread(handoff.consumer, "default", 10) for _ in range(50)))
    broker = HandoffBroker()

    @actor(broker=broker)
    def note() -> None: ...

    task = asyncio.create_task(handoff.run(proxy_for(note)))
    await asyncio.sleep(0)
    found = [proxy for proxy in [next(consumer) for consumer in consumers[:2]] if proxy is not None]
    assert len(found) == 1
    consumers[-1].nack(found[0])
    await task


def test_a_job_that_comes_back_after_its_loop_has_gone_harms_nobody() -> None:
    broker = HandoffBroker()

    @actor(broker=broker)
    def note() -> None: ...

    async def hand_over() -> JobProxy:
        proxy = proxy_for(note)
        proxy.hand_over()
        return proxy

    proxy = asyncio.run(hand_over())
    broker.consume("default").ack(proxy)


async def test_nothing_keeps_a_job_that_has_ended() -> None:
    broker = HandoffBroker()

    @actor(broker=broker)
    def fail() -> None:
        raise ValueError("broken")

    with dramatiq_threads(broker):
        proxy = proxy_for(fail)
        gone = weakref.ref(proxy)
        await broker.handoff.run(proxy)
        del proxy
        await broker.handoff.run(proxy_for(fail))  # the thread has gone on to the next
        gc.collect()
        assert gone() is None
