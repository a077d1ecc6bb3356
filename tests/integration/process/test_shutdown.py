"""The end of a worker process: SIGTERM drains, an interrupted job is no failed attempt, a second signal forces."""

from __future__ import annotations

from pathlib import Path

import pytest

from jq_actors import jobs
from tests.integration.site import Site, StartWorker
from tests.support.application import Place, running
from tests.support.waiting import eventually_sync

BLOCKS_IN_A_THREAD = """
@actor
async def blocks_in_a_thread() -> None:
    note("start blocking")
    await asyncio.to_thread(time.sleep, 3600)
"""


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
        # As patient as Dramatiq is by itself: other tests make it quicker.
        worker = site.start(*command, "myjobs", "-p", "1", "-t", "1", dramatiq_worker_timeout="1000")
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
        again.kill()


def test_a_second_sigterm_forces_and_what_can_be_interrupted_is_no_crash(site: Site) -> None:
    with running(site.place.configuration):
        command = site.actors()["sleeps"].send("long", 60)
        worker = site.start("dramatiq", "jq_actors", "myjobs", "-p", "1", "-t", "1")
        site.wait_for_note("start long")
        worker.terminate()
        worker.wait_for_line("draining")
        worker.terminate()

        assert worker.wait(20) == 1
        assert "end long" not in site.notes
        job = jobs.get(command.job_id)
        assert job is not None
        assert (job.state, job.attempt, job.crashes) == ("queued", 0, 0)


def test_a_thread_of_an_async_actor_does_not_hold_up_the_end(site: Site) -> None:
    """`asyncio.to_thread` cannot be interrupted; Python would wait for such a thread before it ends a process."""
    site = Site(with_shutdown_timeout(site.place, "500ms"), site.folder, site._start)
    with (site.folder / "myjobs.py").open("a") as module:
        module.write(BLOCKS_IN_A_THREAD)
    with running(site.place.configuration):
        site.actors()["blocks_in_a_thread"].send()
        worker = site.start("dramatiq", "jq_actors", "myjobs", "-p", "1", "-t", "1")
        site.wait_for_note("start blocking")
        worker.terminate()
        assert worker.wait(30) == 0


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
