"""What an operator does to groups and their jobs, from the process that runs them: stored, and effective at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from unittest.mock import AsyncMock

import pytest

from jq_actors import actor, jobs
from jq_actors.errors import JobNotFoundError, RequiresPersistenceError, StoreError
from jq_actors.events import GroupPaused, GroupResumed, JobFailed, JobUnhandled
from jq_actors.model.group import Group
from jq_actors.store.sql import SqlStore
from tests.integration.steps import Steps
from tests.integration.worker.test_groups import with_groups
from tests.support.application import Application, Place, running

NOBODY = "00000000-0000-7000-8000-000000000000"


@pytest.fixture
def app(place_with_rows: Place) -> Iterator[Application]:
    with running(with_groups(place_with_rows)) as application:
        yield application


@pytest.fixture(autouse=True)
def _no_group_is_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SqlStore, "mend_groups", AsyncMock(return_value=0))  # what was asked for is enough


@pytest.fixture
def steps(app: Application) -> Steps:
    return Steps()


def seen(name: str) -> Group:
    found = jobs.group(name)
    assert found is not None
    return found


def test_a_paused_group_starts_nothing_until_it_is_resumed(app: Application, steps: Steps) -> None:
    app.record(GroupPaused, GroupResumed)
    with app.worker():
        assert jobs.pause(group="g", reason="ops: audit") is True
        assert jobs.pause(group="g", reason="again") is False
        steps.send("g", 0, 1, 2)
        steps.send("h", 0)
        app.wait(lambda: steps.ran["h"] == [0], "the other group")
        group = seen("g")
        assert (group.state, group.waiting, group.running) == ("paused", 3, 0)
        assert "ops: audit" in (group.reason or "")
        assert steps.ran["g"] == []
        assert jobs.resume(group="g") is True
        app.wait(lambda: steps.ran["g"] == [0, 1, 2], "the resumed group")
        assert jobs.resume(group="g") is False
    assert app.of(GroupPaused) == [GroupPaused("g", "ops: audit")]
    assert app.of(GroupResumed) == [GroupResumed("g")]


def test_what_is_queued_when_its_group_is_paused_is_not_started(app: Application, steps: Steps) -> None:
    [first, second] = steps.send("g", 0, 1)
    jobs.pause(group="g", reason="ops")
    assert [job.state for job in (jobs.get(first), jobs.get(second)) if job] == ["waiting", "waiting"]
    with app.worker():
        steps.send("h", 0)
        app.wait(lambda: steps.ran["h"] == [0], "the other group")
        assert steps.ran["g"] == []
        jobs.resume(group="g")
        app.wait(lambda: steps.ran["g"] == [0, 1], "its jobs")


def test_what_runs_when_its_group_is_paused_comes_to_its_end(app: Application, steps: Steps) -> None:
    may_end = asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    @actor
    async def waits() -> None:
        loops.append(asyncio.get_running_loop())
        await may_end.wait()

    with app.worker():
        first = waits.send_with_options(group="g").job_id
        app.wait(lambda: loops, "its start")
        [second] = steps.send("g", 1)
        jobs.pause(group="g", reason="ops")
        loops[0].call_soon_threadsafe(may_end.set)
        assert app.ended(first).state == "succeeded"
        assert (seen("g").head, seen("g").state) == (second, "paused")
        jobs.resume(group="g")
        app.wait(lambda: steps.ran["g"] == [1], "the one behind")


def test_retried_jobs_of_a_group_run_in_their_first_order(app: Application, steps: Steps) -> None:
    app.record(JobFailed)
    steps.broken = True
    with app.worker():
        first = steps.send("g", 0, 1, 2, 3)
        app.wait(lambda: len(app.of(JobFailed)) == 4, "four failures")
        steps.broken = False
        jobs.pause(group="g", reason="until they are retried")
        steps.send("g", 4)
        assert set(jobs.retry([first[3], first[1]])) == {first[1], first[3]}
        assert set(jobs.retry(state="failed", group="g")) == {first[0], first[2]}
        assert jobs.retry(state="failed", group="g") == []
        assert seen("g").waiting == 5
        jobs.resume(group="g")
        app.wait(lambda: len(steps.ran["g"]) == 5, "all of them")
    assert steps.ran["g"] == [0, 1, 2, 3, 4]


def test_only_what_is_asked_for_is_retried(app: Application, steps: Steps) -> None:
    app.record(JobFailed)
    steps.broken = True
    with app.worker():
        [one, two] = [*steps.send("one", 1), *steps.send("two", 2)]
        app.wait(lambda: len(app.of(JobFailed)) == 2, "two failures")
        steps.broken = False
        assert jobs.retry([]) == []
        assert jobs.retry(state="cancelled") == []
        assert jobs.retry(state="failed", actor="another") == []
        assert jobs.retry(one) == [one]
        assert app.ended(one).state == "succeeded"
        assert jobs.retry(one) == []
        with pytest.raises(JobNotFoundError, match="no id at all"):
            jobs.retry("no id at all")
        with pytest.raises(JobNotFoundError, match=NOBODY):
            jobs.retry([NOBODY, two])
        assert app.ended(two).state == "succeeded"
    assert (steps.ran["one"], steps.ran["two"]) == ([1], [2])


def test_a_job_moves_to_the_front_and_the_others_keep_their_order(app: Application, steps: Steps) -> None:
    with app.worker():
        jobs.pause(group="g", reason="ops")
        ids = steps.send("g", 0, 1, 2, 3)
        moved = jobs.move(ids[3], front=True)
        assert moved.place is not None
        assert (moved.place.number, moved.place.of) == (1, 4)
        assert seen("g").head == ids[3]
        jobs.resume(group="g")
        app.wait(lambda: len(steps.ran["g"]) == 4, "all of them")
    assert steps.ran["g"] == [3, 0, 1, 2]


def test_a_job_moves_to_the_end_of_another_group(app: Application, steps: Steps) -> None:
    with app.worker():
        for name in ("a", "b"):
            jobs.pause(group=name, reason="ops")
        [_, moved, _], _ = steps.send("a", 0, 1, 2), steps.send("b", 10)
        place = jobs.move(moved, group="b").place
        assert place is not None
        assert (place.number, place.of) == (2, 2)
        for name in ("a", "b"):
            jobs.resume(group=name)
        app.wait(lambda: len(steps.ran["a"]) == len(steps.ran["b"]) == 2, "both groups")
    assert (steps.ran["a"], steps.ran["b"]) == ([0, 2], [10, 1])


def test_a_group_goes_on_when_the_job_that_blocks_it_is_moved_away(app: Application, steps: Steps) -> None:
    app.record(JobUnhandled)

    @actor
    async def gone() -> None: ...

    command = gone.message_with_options(group="g")
    del app.broker.actors["gone"]
    app.broker.enqueue(command)
    steps.send("g", 1, 2)
    with app.worker():
        app.wait(lambda: seen("g").state == "blocked", "the unhandled head")
        assert command.job_id in (seen("g").reason or "")
        assert jobs.move(command.job_id, group="elsewhere").group == "elsewhere"
        app.wait(lambda: steps.ran["g"] == [1, 2], "those behind it")


def test_what_cannot_be_moved_says_why(app: Application, steps: Steps) -> None:
    @actor
    async def alone() -> None: ...

    with app.worker():
        [ended] = steps.send("g", 0)
        app.ended(ended)
        with pytest.raises(StoreError):
            jobs.move(ended, front=True)
    without = alone.send_with_options(delay=3_600_000).job_id
    with pytest.raises(StoreError):
        jobs.move(without, front=True)
    with pytest.raises(JobNotFoundError):
        jobs.move(NOBODY, front=True)
    with pytest.raises(JobNotFoundError):
        jobs.move("no id at all", group="g")


def test_groups_are_found_page_by_page(app: Application, steps: Steps) -> None:
    names = [f"g{number:02}" for number in range(12)]
    for name in names:
        steps.send(name, 0)
    for name in names[3:6]:
        jobs.pause(group=name, reason="ops")
    found: list[str] = []
    page = jobs.groups(limit=5)
    while True:
        found += [group.name for group in page.groups]
        if page.cursor is None:
            break
        page = jobs.groups(limit=5, after=page.cursor)
    assert found == names
    assert [group.name for group in jobs.groups(state="paused").groups] == names[3:6]
    assert [group.name for group in jobs.groups(state=["queued", "paused"]).groups] == names
    assert jobs.groups(state="running").groups == ()
    assert jobs.group("unknown") is None
    with pytest.raises(ValueError, match="cursor"):
        jobs.groups(after="nonsense")


async def test_the_twins_do_the_same(app: Application, steps: Steps) -> None:
    ids = await asyncio.to_thread(steps.send, "g", 0, 1)
    assert await jobs.pause_async(group="g", reason="ops")
    assert (await jobs.move_async(ids[1], front=True)).id == ids[1]
    group = await jobs.group_async("g")
    assert group is not None
    assert (group.head, group.state) == (ids[1], "paused")
    assert (await jobs.groups_async(state="paused")).groups[0].name == "g"
    assert await jobs.retry_async(ids) == []
    assert await jobs.resume_async(group="g")
    await asyncio.to_thread(app.broker.close)


def test_with_the_broker_away_it_is_stored(sqlite_url: str) -> None:
    place = Place("no-broker", {"broker": {"url": "amqp://127.0.0.1:1"}, "middleware": _rows(sqlite_url)})
    with running(with_groups(place)):

        @actor
        async def step() -> None: ...

        step.send_with_options(group="g")
        assert jobs.pause(group="g", reason="ops")
        assert jobs.resume(group="g")
        assert seen("g").state == "queued"


def test_without_rows_all_of_it_refuses(embedded_memory: Place) -> None:
    calls: list[Callable[[], object]] = [
        lambda: jobs.pause(group="g", reason="ops"),
        lambda: jobs.resume(group="g"),
        lambda: jobs.group("g"),
        jobs.groups,
        lambda: jobs.move(NOBODY, front=True),
        lambda: jobs.retry(NOBODY),
    ]
    with running(with_groups(embedded_memory)):
        for call in calls:
            with pytest.raises(RequiresPersistenceError, match="persistence"):
                call()


def _rows(url: str) -> list[dict[str, object]]:
    return [{"persistence": {"url": url}}, {"retry": {}}]
