"""The runtime of a process: a start that fails, closes of all kinds, several brokers, several workers."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any

import dramatiq
import pytest

from jq_actors import JobBroker, JobMiddleware, actor, jobs
from jq_actors.actors.actor import JobActor
from jq_actors.chain.middleware import Process
from jq_actors.errors import NotMigratedError, RuntimeStateError, SendError, StoreUnavailableError
from jq_actors.events import CloseFailed, DrainFinished, DrainStarted, JobFinished, JobStarted, TaskFailed
from jq_actors.model.worker_identity import WorkerIdentity
from jq_actors.store.port import JobStore
from jq_actors.worker import serving
from jq_actors.worker.limits import BOARD_VARIABLE, Board, Limits
from jq_middleware.persistence import Persistence
from tests.integration.site import Site
from tests.support.application import Application, Place, running

pytestmark = pytest.mark.blocking_allowed  # blocking calls inside of a loop are part of what is tested

WAIT = 20.0


def our_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name in ("jq-io", "jq-actors")]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = our_threads()
    yield
    left = [thread for thread in our_threads() if thread not in before]
    for thread in left:
        thread.join(WAIT)  # one that led a stuck job ends a moment after that
    assert [thread for thread in left if thread.is_alive()] == []


class Hook(JobMiddleware):
    """Does what the test says when the runtime starts, stops or sends."""

    async def on_start(self, process: Process) -> None:
        await self.start(process)

    async def on_stop(self, process: Process) -> None:
        await self.stop()

    async def start(self, process: Process) -> None: ...

    async def stop(self) -> None: ...


@contextmanager
def hooked(place: Place, hook: dramatiq.Middleware) -> Iterator[Application]:
    with running(place.configuration) as app:
        app.broker.add_middleware(hook)
        app.record(CloseFailed, TaskFailed, JobFinished, JobStarted, DrainFinished)
        yield app


def note_to(runs: list[Any], broker: JobBroker | None = None) -> JobActor[..., Any]:
    @actor(broker=broker)
    async def note(value: Any) -> None:
        runs.append(value)

    return note


# -- a start that fails


def test_a_start_that_fails_leaves_nothing_running_and_the_next_one_is_a_new_one(embedded_rows: Place) -> None:
    class Moody(Hook):
        starts, stops = 0, 0

        async def start(self, process: Process) -> None:
            self.starts += 1
            if self.starts < 3:
                raise OSError("port 9191 is taken")

        async def stop(self) -> None:
            self.stops += 1

    moody = Moody()
    with hooked(embedded_rows, moody) as app:
        note = note_to([])
        for _ in range(2):
            with pytest.raises(OSError, match="9191"):
                note.send(1)
            assert our_threads() == []
        assert moody.stops == 0, "it had not started"
        note.send(2)
        assert len(jobs.find(actor="note").jobs) == 1
        app.broker.close()
        assert moody.stops == 1


def test_everybody_who_waits_for_a_start_learns_that_it_failed(embedded_memory: Place) -> None:
    entered, go_on, errors = threading.Event(), threading.Event(), list[Exception]()

    class Broken(Hook):
        async def start(self, process: Process) -> None:
            entered.set()
            await asyncio.to_thread(go_on.wait, WAIT)
            raise OSError("broken")

    def send() -> None:
        try:
            note.send(1)
        except OSError as error:
            errors.append(error)

    with hooked(embedded_memory, Broken()):
        note = note_to([])
        threads = [threading.Thread(target=send) for _ in range(8)]
        for thread in threads:
            thread.start()
        assert entered.wait(WAIT)
        go_on.set()
        for thread in threads:
            thread.join(WAIT)
    assert len(errors) == 8


def test_tables_that_are_not_migrated_end_a_send_with_a_sentence(sqlite_url: str) -> None:
    layers = [{"persistence": {"url": sqlite_url, "auto_migrate": False}}]
    with running({"broker": {"url": "embedded://"}, "middleware": layers}):
        note = note_to([])
        for _ in range(2):
            with pytest.raises(NotMigratedError, match="jq-actors db upgrade"):
                note.send(1)


def test_tables_that_are_not_migrated_end_a_worker_with_a_sentence_and_2(
    sqlite_url: str, tmp_path: Any, start_worker: Any
) -> None:
    layers = [{"persistence": {"url": sqlite_url, "auto_migrate": False}}]
    site = Site(Place("x", {"broker": {"url": "embedded://"}, "middleware": layers}), tmp_path, start_worker)
    worker = site.start("dramatiq", "jq_actors", "myjobs", "-p", "1", "-t", "1")
    assert worker.wait(30) == 2
    assert "jq-actors db upgrade" in worker.text
    assert "Traceback" not in worker.text


# -- what a middleware may do while the runtime starts


def test_a_middleware_may_send_when_the_runtime_starts(embedded_rows: Place) -> None:
    class Greeter(Hook):
        async def start(self, process: Process) -> None:
            async with asyncio.timeout(WAIT):
                await note.send_async("hello")

    with hooked(embedded_rows, Greeter()) as app:
        runs: list[str] = []
        note = note_to(runs)
        with app.worker():
            app.wait(lambda: runs == ["hello"], "the greeting")


async def test_the_async_twins_leave_the_loop_of_their_caller_alone_while_the_runtime_starts(
    embedded_rows: Place,
) -> None:
    answered: Future[None] = Future()

    class AsksTheCaller(Hook):
        async def start(self, process: Process) -> None:
            async with asyncio.timeout(WAIT):
                await asyncio.wrap_future(answered)

    with hooked(embedded_rows, AsksTheCaller()) as app:
        note = note_to([])
        sending = asyncio.create_task(note.send_async(1))
        looking = asyncio.create_task(jobs.find_async(actor="note"))
        await asyncio.sleep(0)
        answered.set_result(None)
        await sending
        await looking
        await asyncio.to_thread(app.broker.close)


def test_background_tasks_do_not_carry_the_context_of_whoever_was_first(embedded_memory: Place) -> None:
    request = contextvars.ContextVar("request", default="none")
    seen: list[str] = []

    class Looks(Hook):
        async def start(self, process: Process) -> None:
            seen.append(request.get())

        async def enqueue(self, commands: Sequence[Any], call_next: Any) -> None:
            seen.append(request.get())  # but a sending belongs to its request: tracing needs that
            await call_next(commands)

    with hooked(embedded_memory, Looks()):
        request.set("the first request")
        note_to([]).send(1)
    assert seen == ["none", "the first request"]


# -- closes


def test_closing_skips_no_part_for_the_fault_of_another(embedded_rows: Place) -> None:
    class Broken(Hook):
        async def stop(self) -> None:
            raise OSError("cannot stop")

    with hooked(embedded_rows, Broken()) as app:
        note = note_to([])
        note.send(1)
        transport = app.broker.runtime.transport
        app.broker.close()
        assert not transport.health.connected
        [told] = app.of(CloseFailed)
        assert (told.part, "cannot stop" in told.error) == ("middleware Broken", True)
        assert len(jobs.find(actor="note").jobs) == 1


def test_closing_waits_for_a_sending_that_is_under_way(embedded_rows: Place) -> None:
    entered, go_on = threading.Event(), threading.Event()

    class Slow(Hook):
        async def enqueue(self, commands: Sequence[Any], call_next: Any) -> None:
            entered.set()
            await asyncio.to_thread(go_on.wait, WAIT)
            await call_next(commands)

    with hooked(embedded_rows, Slow()) as app:
        note = note_to([])
        sender = threading.Thread(target=note.send, args=(1,))
        sender.start()
        assert entered.wait(WAIT)
        closer = threading.Thread(target=app.broker.close)
        closer.start()
        go_on.set()
        sender.join(WAIT)
        closer.join(WAIT)
        assert len(jobs.find(actor="note").jobs) == 1


def test_sends_from_many_threads_end_however_they_meet_a_close(embedded_rows: Place) -> None:
    """Each returns, raises what is known, or starts the next runtime; none waits for ever, none lies."""
    sent, odd, stop = list[str](), list[BaseException](), threading.Event()

    def send() -> None:
        while not stop.is_set():
            try:
                sent.append(note.send(1).job_id)
            except (SendError, RuntimeStateError):
                continue
            except BaseException as error:  # noqa: BLE001 - told below
                odd.append(error)
                return

    def has_sent(count: int) -> bool:
        return len(sent) >= count or bool(odd)

    with running(embedded_rows.configuration) as app:
        note = note_to([])
        threads = [threading.Thread(target=send, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        for count in range(10, 110, 10):
            app.wait(partial(has_sent, count), f"{count} sendings")
            app.broker.close()
        stop.set()
        for thread in threads:
            thread.join(WAIT)
            assert not thread.is_alive()
        assert odd == []
        assert set(sent) <= set(_all_ids())


def _all_ids() -> Iterator[str]:
    page = jobs.find(limit=1000)
    while True:
        yield from (job.id for job in page.jobs)
        if page.cursor is None:
            return
        page = jobs.find(limit=1000, after=page.cursor)


def test_a_loop_of_ours_cannot_close_what_it_runs_in(embedded_rows: Place) -> None:
    with running(embedded_rows.configuration) as app:

        @actor(max_retries=0)
        async def close() -> str:
            try:
                app.broker.close()
            except RuntimeStateError as error:
                return str(error)
            return "closed"

        with app.worker():
            assert "from another thread" in jobs.result(close.send().job_id, timeout=WAIT)


def test_a_close_without_a_drain_gives_the_running_jobs_back(embedded_rows: Place) -> None:
    """A second signal, or a program that forgets to stop its worker: interrupted is not failed."""
    with running(embedded_rows.configuration) as app:
        app.record(JobStarted)

        @actor
        async def sleeps() -> None:
            await asyncio.sleep(3600)

        worker = dramatiq.Worker(app.broker, worker_threads=1, worker_timeout=50)
        worker.start()
        command = sleeps.send()
        app.wait(lambda: app.of(JobStarted), "its start")
        app.broker.close()
        job = jobs.get(command.job_id)
        assert job is not None
        assert (job.state, job.attempt, job.crashes) == ("queued", 0, 0)
        worker.stop(timeout=10_000)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_sends_although_a_thread_of_its_parent_was_in_the_middle_of_it(embedded_rows: Place) -> None:
    entered, go_on = threading.Event(), threading.Event()

    class Slow(Hook):
        async def start(self, process: Process) -> None:
            entered.set()
            await asyncio.to_thread(go_on.wait, WAIT)

    with hooked(embedded_rows, Slow()) as app:
        note = note_to([])
        parent = threading.Thread(target=note.send, args=("parent",))
        with app.broker._lock:
            parent.start()  # waits for the lock, in the middle of `send`
            child = os.fork()
            if child == 0:
                signal.alarm(int(WAIT))  # a child that waits for ever ends by a signal
                go_on.set()
                code = 1
                try:
                    note.send("child")
                    app.broker.close()
                    code = 0
                finally:
                    os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        go_on.set()
        parent.join(WAIT)
        assert sorted(job.args[0] for job in jobs.find(actor="note").jobs) == ["child", "parent"]


FORKS = """
import os, sys
import jq_actors
from jq_actors import actor
from jq_actors.events import BrokerDisconnected
jq_actors.configure({configuration!r})

@actor
async def note(name: str) -> None: ...

note.broker.events.subscribe(BrokerDisconnected, lambda event: print("lost", event))
note.send("parent")
for number in range(4):
    child = os.fork()
    if child == 0:
        if number % 2:
            note.send("child")
        sys.exit(0)  # all of the interpreter's objects are taken down, those of the parent too
    assert os.waitpid(child, 0)[1] == 0
    note.send("parent again")
"""


def test_a_child_that_ends_does_not_touch_the_connections_of_its_parent(
    rabbit_alone: Place, rabbitmq: Any, tmp_path: Any
) -> None:
    script = tmp_path / "forks.py"
    script.write_text(FORKS.format(configuration=rabbit_alone.configuration))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    queue = f"{rabbit_alone.configuration['broker']['namespace']}.default"
    assert rabbitmq.depth(queue) == (7, 0)


# -- the end of a worker


def heartbeats(url: str) -> list[str]:
    with sqlite3.connect(url.partition("///")[2]) as database:
        return [at for (at,) in database.execute("SELECT heartbeat_at FROM orm_jobs_workers")]


def test_the_lease_is_renewed_all_through_a_drain(embedded_rows: Place, sqlite_url: str) -> None:
    """A48. Else another worker would take over what still runs here."""
    with running({**embedded_rows.configuration, "worker": {"lease": "1s"}}) as app:
        app.record(JobStarted, DrainStarted)
        release = threading.Event()

        @actor
        def slow() -> str:
            release.wait(WAIT)
            return "done"

        worker = dramatiq.Worker(app.broker, worker_threads=1, worker_timeout=50)
        worker.start()
        command = slow.send()
        app.wait(lambda: app.of(JobStarted), "its start")
        stopping = threading.Thread(target=worker.stop)
        stopping.start()
        app.wait(lambda: app.of(DrainStarted), "the drain")
        for _ in range(4):
            before = heartbeats(sqlite_url)
            app.wait(lambda before=before: heartbeats(sqlite_url) != before, "a heartbeat")  # type: ignore[misc]
        release.set()
        stopping.join(WAIT)
        assert jobs.result(command.job_id, timeout=WAIT) == "done"
        app.broker.close()
        assert heartbeats(sqlite_url) == [], "it has left"


def test_a_worker_that_cannot_stop_a_job_does_not_sign_off(
    embedded_rows: Place, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row is what tells the others, when its process is gone, that the job has to run again."""
    monkeypatch.setattr(serving, "INTERRUPT_GRACE", 0.1)
    monkeypatch.setattr(serving, "LEAVE_GRACE", 0.1)
    release = threading.Event()
    with running({**embedded_rows.configuration, "worker": {"shutdown_timeout": "100ms"}}) as app:
        app.record(JobStarted, DrainFinished)

        @actor
        def stuck() -> None:
            release.wait(WAIT)  # no interrupt gets into it

        worker = dramatiq.Worker(app.broker, worker_threads=1, worker_timeout=50)
        worker.start()
        command = stuck.send()
        app.wait(lambda: app.of(JobStarted), "its start")
        worker.stop(timeout=100)
        assert [event.interrupted for event in app.of(DrainFinished)] == [1]
        app.broker.close()
        assert len(heartbeats(sqlite_url)) == 1
        job = jobs.get(command.job_id)
        assert job is not None
        assert job.state == "running"
        release.set()
        for thread in worker.workers:
            thread.join(WAIT)


# -- several of a kind


def _has(runs: Sequence[Any], count: int) -> bool:
    return len(runs) == count


def test_two_brokers_in_one_process_do_not_know_of_each_other(embedded_memory: Place) -> None:
    with running(embedded_memory.configuration) as first, running(embedded_memory.configuration) as second:
        first_runs, second_runs = list[int](), list[int]()
        note_first, note_second = note_to(first_runs, first.broker), note_to(second_runs, second.broker)
        with first.worker(), second.worker():
            note_first.send(1)
            note_second.send(2)
            first.wait(lambda: first_runs and second_runs, "both")
            first.broker.close()
            note_second.send(3)
            second.wait(lambda: len(second_runs) == 2, "the other goes on")
    assert (first_runs, second_runs) == ([1], [2, 3])


def test_one_worker_after_another(place: Place) -> None:
    """As test suites do: a worker for each test, one broker for all."""
    runs: list[Any] = []
    with running(place.configuration) as app:
        app.record(TaskFailed, CloseFailed)
        note = note_to(runs)

        @actor
        def note_sync(value: Any) -> None:
            runs.append(value)

        for number in range(3):
            note.send([number, "async, before"])
            note_sync.send([number, "sync, before"])
            with app.worker():
                note.send([number, "async"])
                note_sync.send([number, "sync"])
                app.wait(partial(_has, runs, 4 * (number + 1)), "four jobs")
        assert app.events == []
        assert len(our_threads()) == 2


def test_what_an_ended_worker_counted_it_counts_no_more(
    embedded_memory: Place, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    Board(tmp_path, Limits(), os.getpid(), 1).save()
    monkeypatch.setenv(BOARD_VARIABLE, str(tmp_path))
    with running(embedded_memory.configuration) as app:
        runs: list[int] = []
        note = note_to(runs)
        for number in range(2):
            with app.worker():
                note.send(number)
                app.wait(partial(_has, runs, number + 1), "the job")
        assert [tally.jobs for tally in Board.load(tmp_path).tallies()] == [1]


# -- a worker whose registration has to wait


class _Unregistered(Persistence):
    """Persistence whose database seems away until `registers` is set, as far as registering goes."""

    registers = threading.Event()

    def open_store(self, process: Process) -> JobStore:
        store: Any = super().open_store(process)
        register = store.register

        async def later(worker: WorkerIdentity, *arguments: Any) -> None:
            if not self.registers.is_set():
                raise StoreUnavailableError("away")
            await register(worker, *arguments)

        store.register = later
        return store  # type: ignore[no-any-return]


@pytest.fixture
def unregistered(sqlite_url: str) -> Place:
    _Unregistered.registers = threading.Event()
    layer = {f"{__name__}:_Unregistered": {"url": sqlite_url, "relay_interval": "100ms"}}
    return Place("unregistered", {"broker": {"url": "embedded://"}, "middleware": [layer]})


def test_a_queue_that_is_declared_while_the_registration_waits_is_served(unregistered: Place) -> None:
    runs: list[str] = []
    with running(unregistered.configuration) as app, app.worker():

        @actor(queue_name="late")
        async def note(value: str) -> None:
            runs.append(value)

        @actor(queue_name="late_too")
        def note_sync(value: str) -> None:
            runs.append(value)

        note.send("async")
        note_sync.send("sync")
        assert runs == []
        _Unregistered.registers.set()
        app.wait(lambda: len(runs) == 2, "both")
    assert sorted(runs) == ["async", "sync"]


def test_a_worker_that_is_drained_before_it_is_registered_takes_nothing_afterwards(unregistered: Place) -> None:
    runs: list[int] = []
    with running(unregistered.configuration) as app:
        app.record(DrainFinished)
        note = note_to(runs)
        with app.worker():
            command = note.send(1)
        _Unregistered.registers.set()
        assert app.of(DrainFinished)
        serving = app.broker.runtime.serving
        assert serving is not None
        app.wait(lambda: serving._registered, "its registration, which nobody has called off")
        job = jobs.get(command.job_id)
    assert job is not None
    assert job.state == "queued"
    assert runs == []
