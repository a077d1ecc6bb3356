"""Sending from everywhere: a plain thread, a running loop, after a fork, many threads, the end of a process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import dramatiq
import pytest

from jq_actors import JobMiddleware, actor, jobs
from jq_actors.errors import NotStoredError, RuntimeStateError, SendUnknownError
from jq_actors.events import SendDeferred
from tests.support.application import Application, Place, running

pytestmark = pytest.mark.blocking_allowed  # a blocking send inside of a loop is what is tested


def test_send_from_a_plain_thread(app: Application) -> None:
    runs: list[str] = []

    @actor
    async def note(name: str) -> None:
        runs.append(name)

    with app.worker():
        thread = threading.Thread(target=note.send, args=("from a thread",))
        thread.start()
        thread.join(10)
        app.wait(lambda: runs, "the job")

    assert not thread.is_alive()
    assert runs == ["from a thread"]


async def test_send_inside_of_a_running_loop(embedded_app: Application) -> None:
    runs: list[str] = []

    @actor
    async def note(name: str) -> None:
        runs.append(name)

    with embedded_app.worker():
        note.send("sync")  # blocks this loop for a moment, and never for ever
        await note.send_async("async")
        await asyncio.gather(*(note.send_async(str(number)) for number in range(50)))
        embedded_app.wait(lambda: len(runs) == 52, "all jobs")


def test_actors_send_further_jobs(app: Application) -> None:
    runs: list[str] = []

    @actor
    async def leaf(name: str) -> None:
        runs.append(name)

    @actor
    async def asynchronous() -> None:
        leaf.send("sync from async")
        await leaf.send_async("async from async")

    @actor
    def synchronous() -> None:
        leaf.send("sync from sync")

    with app.worker():
        asynchronous.send()
        synchronous.send()
        app.wait(lambda: len(runs) == 3, "three leaves")

    assert sorted(runs) == ["async from async", "sync from async", "sync from sync"]


def test_a_blocking_send_on_the_io_loop_is_refused_not_deadlocked(embedded_rows: Place) -> None:
    refused: list[BaseException] = []

    class Careless(JobMiddleware):
        async def enqueue(self, commands, call_next):  # type: ignore[no-untyped-def]  # as careless users write it
            if commands[0].actor_name == "first":
                try:
                    second.send()
                except RuntimeStateError as error:
                    refused.append(error)
            await call_next(commands)

    with running(embedded_rows.configuration) as app:
        app.broker.add_middleware(Careless())

        @actor
        async def first() -> None: ...

        @actor
        async def second() -> None: ...

        first.send()

    assert "_async" in str(refused[0])


def test_many_threads_send_at_once(app: Application) -> None:
    runs: list[int] = []

    @actor
    async def note(number: int) -> None:
        runs.append(number)

    def send(start: int) -> None:
        for number in range(start, start + 25):
            note.send(number)

    with app.worker():
        threads = [threading.Thread(target=send, args=(start,)) for start in range(0, 400, 25)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        app.wait(lambda: len(runs) == 400, "all jobs of all threads")

    assert sorted(runs) == list(range(400))


def test_a_cancelled_sender_tears_nothing(app: Application) -> None:
    @actor
    async def note(number: int) -> None: ...

    async def cancel_some() -> None:
        for number in range(40):
            task = asyncio.create_task(note.send_async(number))
            for _ in range(number % 7):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await note.send_async(-1)

    asyncio.run(cancel_some())


@pytest.mark.parametrize("warm", [True, False], ids=["after the parent has sent", "before anybody has sent"])
def test_send_after_fork(place_with_rows: Place, warm: bool) -> None:
    """As gunicorn with preload does: the application is imported, perhaps used, then forked."""
    with running(place_with_rows.configuration) as app:

        @actor
        async def note(name: str) -> int:
            return len(name)

        if warm:
            note.send("parent")
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.write(write_end, note.send("child").job_id.encode())
                app.broker.close()
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        job_id = os.read(read_end, 100).decode()
        os.close(read_end)
        os.close(write_end)
        note.send("parent again")
        with app.worker():
            assert jobs.result(job_id, timeout=20) == 5


AT_EXIT = """
import atexit, threading
import jq_actors
from jq_actors import actor
jq_actors.configure({configuration!r})

@actor
async def note(name: str) -> None: ...

{scenario}
"""


def _produce(place: Place, folder: Path, scenario: str) -> subprocess.CompletedProcess[str]:
    """A process of its own that does what ``scenario`` says, and ends."""
    script = folder / "producer.py"
    script.write_text(AT_EXIT.format(configuration=place.configuration, scenario=textwrap.dedent(scenario)))
    return subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("scenario", "jobs_sent"),
    [
        ("note.send('last line')", 1),
        ("atexit.register(lambda: note.send('at exit'))", 1),
        ("note.send('first')\natexit.register(lambda: note.send('at exit, registered after the start'))", 2),
        ("threading.Thread(target=lambda: [note.send(str(n)) for n in range(20)]).start()", 20),
        ("import asyncio\nasync def main():\n    await note.send_async('in a loop')\nasyncio.run(main())", 1),
    ],
)
def test_send_at_the_end_of_a_process(place_with_rows: Place, tmp_path: Path, scenario: str, jobs_sent: int) -> None:
    """What `send` has returned for is stored, whenever the interpreter ends."""
    done = _produce(place_with_rows, tmp_path, scenario)

    assert done.returncode == 0, done.stderr
    with running(place_with_rows.configuration):
        assert len(jobs.find(actor="note").jobs) == jobs_sent
    assert "Traceback" not in done.stderr


ENDS_AT_ONCE = {
    "one by one": "for n in range(1000): note.send(str(n))",
    "at once": "note.send_many([((str(n),), {}) for n in range(1000)])",
    "while it connects": "note.send_many([((str(n),), {}) for n in range(2000)])",
}


@pytest.mark.parametrize("how", ENDS_AT_ONCE)
def test_a_producer_that_ends_at_once_leaves_nothing_between_row_and_broker(
    rabbit_rows: Place, rabbitmq: Any, tmp_path: Path, how: str
) -> None:
    """What it could still publish is at the broker, and the rest is a relay's: no lease has to run out for it."""
    done = _produce(rabbit_rows, tmp_path, ENDS_AT_ONCE[how])

    assert done.returncode == 0, done.stderr
    ready, _ = rabbitmq.depth(f"{rabbit_rows.configuration['broker']['namespace']}.default")
    assert ready > 0
    with running(rabbit_rows.configuration) as app:
        runs: list[str] = []

        @actor
        async def note(name: str) -> None:
            runs.append(name)

        count = 2000 if how == "while it connects" else 1000
        with app.worker():
            app.wait(lambda: len(runs) == count, "all jobs")  # sooner than a lease of 30 s is over
        assert sorted(runs) == sorted(str(number) for number in range(count))


def test_a_producer_that_is_killed_when_send_has_returned_leaves_rows(rabbit_rows: Place, tmp_path: Path) -> None:
    [persistence, *others] = rabbit_rows.configuration["middleware"]
    persistence = {"persistence": {**persistence["persistence"], "publish_lease": "1s"}}
    place = replace(rabbit_rows, configuration={**rabbit_rows.configuration, "middleware": [persistence, *others]})
    scenario = """
    import os, signal
    for n in range(20):
        note.send(str(n))
        print(n, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    """
    done = _produce(place, tmp_path, scenario)

    assert done.returncode == -signal.SIGKILL, done.stderr
    assert done.stdout.split() == [str(number) for number in range(20)]
    with running(place.configuration) as app:

        @actor
        async def note(name: str) -> None: ...

        stored = jobs.find(actor="note", limit=100).jobs
        assert len(stored) == 20
        with app.worker():
            ended = [app.ended(job.id) for job in stored]
        assert {(job.state.value, job.attempt, job.dispatch) for job in ended} == {("succeeded", 1, 1)}


def test_with_the_broker_away_jobs_are_stored_and_sent_later(rabbit_rows: Place, unused_tcp_port: int) -> None:
    away = {**rabbit_rows.configuration, "broker": {"url": f"amqp://guest:guest@127.0.0.1:{unused_tcp_port}/"}}
    with running(away) as app:
        app.record(SendDeferred)

        @actor
        async def note(name: str) -> int:
            return len(name)

        job_id = note.send("stored").job_id
        app.wait(lambda: app.of(SendDeferred), "the sender to be told")
        stored = jobs.get(job_id)
    assert stored is not None
    assert stored.state == "queued"

    with running(rabbit_rows.configuration) as app:

        @actor(actor_name="note")
        async def note_again(name: str) -> int:
            return len(name)

        with app.worker():
            assert jobs.result(job_id, timeout=20) == 6


def test_without_rows_and_broker_a_send_says_that_nothing_was_stored(unused_tcp_port: int) -> None:
    broker = {"url": f"amqp://guest:guest@127.0.0.1:{unused_tcp_port}/", "confirm_timeout": "500ms"}
    with running({"broker": broker, "middleware": []}):

        @actor
        async def note() -> None: ...

        with pytest.raises((NotStoredError, SendUnknownError)) as failed:
            note.send()
        assert isinstance(failed.value, NotStoredError)


def test_dramatiq_reads_ours_and_we_adopt_theirs(place_with_rows: Place) -> None:
    with running(place_with_rows.configuration) as app:

        @actor
        async def add(a: int, b: int) -> int:
            return a + b

        ours = add.message(1, 2)
        theirs = dramatiq.Message.decode(ours.encode())
        assert (theirs.actor_name, tuple(theirs.args), theirs.message_id) == ("add", (1, 2), ours.job_id)

        foreign: dramatiq.Message[int] = dramatiq.Message("default", "add", (20, 3), {}, {})
        with app.worker():
            app.broker.enqueue(foreign)
            assert jobs.result(foreign.message_id, timeout=20) == 23
