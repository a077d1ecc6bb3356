"""The end of a worker process: SIGTERM drains, an interrupted job is no failed attempt, a second signal forces."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jq_actors import jobs
from tests.support.application import Place, running
from tests.support.waiting import eventually_sync
from tests.support.workers import WorkerProcess

ACTORS = """
import asyncio, pathlib, time
from jq_actors import actor, current_job

HERE = pathlib.Path(__file__).parent

def note(text):
    with (HERE / "notes").open("a") as notes:
        notes.write(text + "\\n")

@actor
async def sleeps(name: str, seconds: float) -> str:
    note(f"start {name}")
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        note(f"cancelled {name}")
        raise
    note(f"end {name}")
    return name

@actor
def sleeps_sync(name: str, seconds: float) -> str:
    note(f"start {name}")
    until = time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            time.sleep(0.05)
    except BaseException:
        note(f"interrupted {name}")
        raise
    note(f"end {name}")
    return name
"""

StartWorker = Callable[..., WorkerProcess]


class Site:
    """A folder with actors and a configuration, and processes that use it."""

    def __init__(self, place: Place, folder: Path, start: StartWorker) -> None:
        self.place, self.folder, self._start = place, folder, start
        (folder / "myjobs.py").write_text(ACTORS)
        (folder / "jq.json").write_text(json.dumps(place.configuration))  # JSON is YAML

    def start(self, *command: str, **env: str) -> WorkerProcess:
        return self._start(*command, env={"JQ_CONFIG": str(self.folder / "jq.json"), **env})

    @property
    def notes(self) -> list[str]:
        notes = self.folder / "notes"
        return notes.read_text().splitlines() if notes.exists() else []

    def wait_for_note(self, note: str) -> None:
        eventually_sync(lambda: note in self.notes, 30, f"{note!r} among the notes")

    def actors(self) -> Any:
        """The module of the actors, bound to the application that is running now."""
        namespace: dict[str, Any] = {"__file__": str(self.folder / "myjobs.py"), "__name__": "myjobs"}
        exec(compile(ACTORS, "myjobs.py", "exec"), namespace)
        return namespace


@pytest.fixture
def site(place_with_rows: Place, tmp_path: Path, start_worker: StartWorker) -> Site:
    return Site(place_with_rows, tmp_path, start_worker)


def with_shutdown_timeout(place: Place, timeout: str) -> Place:
    return Place(place.name, {**place.configuration, "worker": {"shutdown_timeout": timeout}})


@pytest.mark.parametrize("command", [("dramatiq", "jq_actors"), ("jq-actors", "worker")], ids=["dramatiq", "jq-actors"])
def test_sigterm_lets_running_jobs_end_and_starts_no_other(site: Site, command: tuple[str, ...]) -> None:
    with running(site.place.configuration):
        actors = site.actors()
        slow = [actors["sleeps"].send("async", 2.0), actors["sleeps_sync"].send("sync", 2.0)]
        worker = site.start(*command, "myjobs", "-p", "1", "-t", "1")
        site.wait_for_note("start async")
        site.wait_for_note("start sync")
        left = actors["sleeps_sync"].send("left", 0.1)  # its only thread is taken
        worker.terminate()

        assert worker.wait(30) == 0, worker.text
        assert [jobs.result(command.job_id, timeout=5) for command in slow] == ["async", "sync"]
        job = jobs.get(left.job_id)
        assert job is not None
        assert (job.state, job.attempt) == ("queued", 0)
        assert "start left" not in site.notes


def test_at_the_shutdown_timeout_jobs_are_interrupted_and_run_again(site: Site) -> None:
    site = Site(with_shutdown_timeout(site.place, "1s"), site.folder, site._start)
    with running(site.place.configuration):
        actors = site.actors()
        sent = [actors["sleeps"].send("async", 30), actors["sleeps_sync"].send("sync", 30)]
        worker = site.start("dramatiq", "jq_actors", "myjobs", "-p", "1", "-t", "2")
        site.wait_for_note("start async")
        site.wait_for_note("start sync")
        worker.terminate()

        assert worker.wait(30) == 0, worker.text
        assert {"cancelled async", "interrupted sync"} <= set(site.notes)
        for command in sent:
            job = jobs.get(command.job_id)
            assert job is not None
            assert (job.state, job.attempt, job.crashes) == ("queued", 0, 0)

        again = site.start("dramatiq", "jq_actors", "myjobs", "-p", "1", "-t", "2")
        eventually_sync(lambda: site.notes.count("start async") == 2, 30, "the second start")
        eventually_sync(lambda: site.notes.count("start sync") == 2, 30, "the second start")
        again.terminate()
        again.wait(30)


def test_a_second_sigterm_forces(site: Site) -> None:
    with running(site.place.configuration):
        site.actors()["sleeps"].send("long", 60)
        worker = site.start("dramatiq", "jq_actors", "myjobs", "-p", "1", "-t", "1")
        site.wait_for_note("start long")
        worker.terminate()
        worker.wait_for_line("draining")
        worker.terminate()

        assert worker.wait(20) == 1
        assert "end long" not in site.notes


def test_only_the_queues_that_are_asked_for(site: Site) -> None:
    with running(site.place.configuration):
        command = site.actors()["sleeps"].send("x", 0.0)
        worker = site.start("dramatiq", "jq_actors", "myjobs", "-p", "1", "-t", "1", "-Q", "other")
        worker.wait_for_line("ready for action")
        worker.terminate()
        assert worker.wait(20) == 0
        job = jobs.get(command.job_id)
        assert job is not None
        assert job.state == "queued"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(("nothing_of_this_name",), "nothing_of_this_name"), (("myjobs",), "middleware")],
    ids=["import", "configuration"],
)
def test_exit_code_2_for_what_is_wrong_before_the_start(site: Site, arguments: tuple[str, ...], told: str) -> None:
    if told == "middleware":
        (site.folder / "jq.json").write_text('{"middleware": ["no_such_middleware"]}')
    worker = site.start("dramatiq", "jq_actors", *arguments, "-p", "1", "-t", "1")

    assert worker.wait(30) == 2
    assert told in worker.text


def test_jq_actors_worker_stops_at_its_limit(site: Site) -> None:
    with running(site.place.configuration):
        actors = site.actors()
        actors["sleeps"].send_many([((str(number), 0.0), {}) for number in range(5)])
        worker = site.start("jq-actors", "worker", "myjobs", "-p", "1", "-t", "1", "--limit", "5")

        assert worker.wait(30) == 0, worker.text
        assert len([note for note in site.notes if note.startswith("end")]) == 5


def test_jq_actors_worker_stops_when_empty(site: Site) -> None:
    with running(site.place.configuration):
        site.actors()["sleeps"].send_many([((str(number), 0.0), {}) for number in range(20)])
        worker = site.start("jq-actors", "worker", "myjobs", "-p", "2", "-t", "1", "--stop-when-empty")

        assert worker.wait(40) == 0, worker.text
        assert len([note for note in site.notes if note.startswith("end")]) == 20
