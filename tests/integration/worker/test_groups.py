"""Groups as a user sees them: order, one at a time, places kept, in every place where jobs run."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from jq_actors import actor, current_job, jobs
from jq_actors.errors import GroupFullError, PositionTakenError
from jq_actors.events import JobFailed, JobRetryScheduled
from tests.support.application import Application, Place, running


def with_groups(place: Place, *rules: dict[str, Any], **options: Any) -> dict[str, Any]:
    """The configuration of ``place`` with `group_fifo` before `retry`."""
    chain = list(place.configuration["middleware"])
    chain.insert(len(chain) - 1, {"group_fifo": {"rules": list(rules), **options}})
    return {**place.configuration, "middleware": chain}


class Diary:
    """What ran, by group; and whether two of a group ever ran at once."""

    def __init__(self) -> None:
        self.ended: defaultdict[str, list[int]] = defaultdict(list)
        self.most: defaultdict[str, int] = defaultdict(int)
        self._running: defaultdict[str, int] = defaultdict(int)

    @property
    def count(self) -> int:
        return sum(len(ended) for ended in self.ended.values())

    def begin(self, group: str) -> None:
        self._running[group] += 1
        self.most[group] = max(self.most[group], self._running[group])

    def end(self, group: str, number: int) -> None:
        self._running[group] -= 1
        self.ended[group].append(number)


@pytest.fixture
def diary() -> Diary:
    return Diary()


@pytest.fixture
def grouped(place: Place) -> Iterator[Application]:
    rules = {"match": "pair-*", "concurrency": 2}, {"match": "part-*", "partitions": 2}
    with running(with_groups(place, *rules)) as application:
        yield application


@pytest.fixture
def grouped_rows(place_with_rows: Place) -> Iterator[Application]:
    rules = (
        {"match": "stop-*", "on_failure": "pause"},
        {"match": "drop-*", "on_failure": "cancel_rest"},
        {"match": "small-*", "max_size": 3},
        {"match": "gap-*", "gap_timeout": "300ms"},
    )
    with running(with_groups(place_with_rows, *rules)) as application:
        yield application


def test_each_group_runs_in_order_and_one_at_a_time(grouped: Application, diary: Diary) -> None:
    @actor(group="g{group}")
    async def step(group: int, number: int) -> None:
        name = current_job().group or ""
        diary.begin(name)
        await asyncio.sleep(0.001 * (number % 3))
        diary.end(name, number)

    @actor(group="g{group}")
    def step_sync(group: int, number: int) -> None:
        name = current_job().group or ""
        diary.begin(name)
        time.sleep(0.001 * (number % 3))
        diary.end(name, number)

    with grouped.worker():
        for number in range(20):
            each = step if number % 4 else step_sync
            each.send_many([((group, number), {}) for group in range(20)])
        grouped.wait(lambda: diary.count == 400, "all 400 jobs", timeout=60)

    assert dict(diary.ended) == {f"g{group}": list(range(20)) for group in range(20)}
    assert set(diary.most.values()) == {1}


def test_jobs_that_were_sent_before_a_worker_came_run_in_order(grouped: Application, diary: Diary) -> None:
    @actor(group="late")
    async def step(number: int) -> None:
        diary.begin("late")
        await asyncio.sleep(0)
        diary.end("late", number)

    step.send_many([((number,), {}) for number in range(100)])
    for number in range(100, 110):
        step.send(number)
    with grouped.worker():
        grouped.wait(lambda: diary.count == 110, "all 110 jobs")
    assert (diary.ended["late"], diary.most["late"]) == (list(range(110)), 1)


def test_partitions_are_accepted_with_rows_too_and_change_no_promise(grouped: Application, diary: Diary) -> None:
    """Without rows five groups share two lanes; with rows there are none."""

    @actor(group="part-{group}")
    async def step(group: int, number: int) -> None:
        diary.begin(f"{group}")
        await asyncio.sleep(0)
        diary.end(f"{group}", number)

    step.send_many([((group, number), {}) for number in range(10) for group in range(5)])
    with grouped.worker():
        grouped.wait(lambda: diary.count == 50, "all 50 jobs")
    assert dict(diary.ended) == {f"{group}": list(range(10)) for group in range(5)}
    assert set(diary.most.values()) == {1}


def test_a_job_that_has_to_run_again_keeps_its_place(grouped: Application, diary: Diary) -> None:
    grouped.record(JobRetryScheduled)

    @actor(group="g", max_retries=2)
    async def step(number: int) -> None:
        diary.begin("g")
        diary.end("g", number)
        if number == 1 and current_job().attempt < 3:
            raise ValueError("again")

    step.send_many([((number,), {}) for number in range(4)])
    with grouped.worker():
        grouped.wait(lambda: diary.count == 6, "all six runs")
    assert diary.ended["g"] == [0, 1, 1, 1, 2, 3]
    assert len(grouped.of(JobRetryScheduled)) == 2


def test_a_job_that_fails_for_good_lets_the_next_one_pass(grouped: Application, diary: Diary) -> None:
    grouped.record(JobFailed)

    @actor(group="g", max_retries=0)
    async def step(number: int) -> None:
        diary.end("g", number)
        if number == 0:
            raise ValueError("no")

    step.send_many([((number,), {}) for number in range(3)])
    with grouped.worker():
        grouped.wait(lambda: diary.count == 3, "all three")
    assert diary.ended["g"] == [0, 1, 2]
    assert len(grouped.of(JobFailed)) == 1


def test_more_workers_for_a_group(grouped: Application, diary: Diary) -> None:
    @actor(group="pair-{name}")
    async def step(name: str, number: int) -> None:
        diary.begin(name)
        await asyncio.sleep(0.01)
        diary.end(name, number)

    with grouped.worker():
        step.send_many([((name, number), {}) for number in range(20) for name in "ab"])
        grouped.wait(lambda: diary.count == 40, "all 40 jobs")
    assert dict(diary.most) == {"a": 2, "b": 2}
    assert all(sorted(ended) == list(range(20)) for ended in diary.ended.values())


def test_a_large_group_does_not_hold_up_a_small_one(place: Place, diary: Diary) -> None:
    """With room for one job at a time, the small group has its turn after a quantum of the large one."""
    is_sent = threading.Event()
    configuration = with_groups(place, quantum=10) | {"queues": {"narrow": {"concurrency": 1}}}
    with running(configuration) as app:

        @actor(group="{tenant}", queue_name="narrow")
        async def step(tenant: str, number: int) -> None:
            while tenant == "large" and number > 20 and not is_sent.is_set():  # noqa: ASYNC110 - set by a thread
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.002)
            diary.end(tenant, number)
            if tenant == "small":
                diary.ended["before"] = list(diary.ended["large"])

        step.send_many([(("large", number), {}) for number in range(600)])
        with app.worker(threads=1):
            app.wait(lambda: len(diary.ended["large"]) > 20, "the large group to run")
            step.send("small", 0)
            is_sent.set()
            app.wait(lambda: len(diary.ended["large"]) == 600, "the large group's end", timeout=60)
    assert diary.ended["small"] == [0]
    assert len(diary.ended["before"]) < 400
    assert diary.ended["large"] == list(range(600))


def test_a_delayed_job_takes_its_place_when_it_is_due(grouped: Application, diary: Diary) -> None:
    @actor(group="g")
    async def step(number: int) -> None:
        diary.end("g", number)

    with grouped.worker():
        step.send_with_options(args=(0,), delay=300)
        step.send(1)
        grouped.wait(lambda: diary.ended["g"] == [1, 0], "both, the delayed one last")


def test_none_is_no_group(grouped: Application) -> None:
    seen: list[str | None] = []

    @actor(group="g")
    async def step() -> None:
        seen.append(current_job().group)

    with grouped.worker():
        step.send()
        step.send_with_options(group=None)
        step.send_with_options(group="another, ☃/#*.")
        grouped.wait(lambda: len(seen) == 3, "all three")
    assert set(seen) == {"g", None, "another, ☃/#*."}


def test_the_order_holds_over_queues(grouped_rows: Application, diary: Diary) -> None:
    @actor(group="g", queue_name="slow")
    async def slow(number: int) -> None:
        diary.begin("g")
        await asyncio.sleep(0.02)
        diary.end("g", number)

    @actor(group="g", queue_name="quick")
    async def quick(number: int) -> None:
        diary.begin("g")
        diary.end("g", number)

    with grouped_rows.worker():
        for number in range(10):
            (quick if number % 2 else slow).send(number)
        grouped_rows.wait(lambda: diary.count == 10, "all ten")
    assert (diary.ended["g"], diary.most["g"]) == (list(range(10)), 1)


def test_a_failed_job_pauses_its_group_until_it_is_resumed(grouped_rows: Application, diary: Diary) -> None:
    @actor(group="stop-{name}", max_retries=0)
    async def step(name: str, number: int) -> None:
        diary.end(name, number)
        if number == 0:
            raise ValueError("no")

    with grouped_rows.worker():
        commands = step.send_many([(("x", number), {}) for number in range(3)])
        failed = grouped_rows.ended(commands[0].job_id)
        group = jobs.group("stop-x")
        assert group is not None
        assert (failed.state, group.state, group.waiting) == ("failed", "paused", 2)
        assert commands[0].job_id in (group.reason or "")
        assert diary.ended["x"] == [0]
        jobs.resume(group="stop-x")
        grouped_rows.wait(lambda: diary.ended["x"] == [0, 1, 2], "the others")


def test_a_failed_job_takes_the_rest_of_its_group_with_it(grouped_rows: Application, diary: Diary) -> None:
    @actor(group="drop-{name}", max_retries=0)
    async def step(name: str, number: int) -> None:
        diary.end(name, number)
        if number == 0:
            raise ValueError("no")

    commands = step.send_many([(("x", number), {}) for number in range(3)])
    with grouped_rows.worker():
        states = [grouped_rows.ended(command.job_id).state for command in commands]
        step.send("x", 3)
        grouped_rows.wait(lambda: diary.ended["x"] == [0, 3], "the one that came later")
    assert states == ["failed", "cancelled", "cancelled"]


def test_a_paused_group_starts_nothing_and_its_neighbours_go_on(grouped_rows: Application, diary: Diary) -> None:
    @actor(group="{name}")
    async def step(name: str, number: int) -> None:
        diary.end(name, number)

    jobs.pause(group="a", reason="maintenance")
    with grouped_rows.worker():
        for number in range(5):
            step.send_many([((name, number), {}) for name in "ab"])
        grouped_rows.wait(lambda: len(diary.ended["b"]) == 5, "the other group")
        assert diary.ended["a"] == []
        jobs.resume(group="a")
        grouped_rows.wait(lambda: diary.ended["a"] == list(range(5)), "the paused group, in order")


def test_failed_jobs_of_a_group_are_retried_in_their_first_order(grouped_rows: Application, diary: Diary) -> None:
    broken = True

    @actor(group="g", max_retries=0)
    async def step(number: int) -> None:
        if broken:
            raise ValueError("no")
        diary.end("g", number)

    with grouped_rows.worker():
        commands = step.send_many([((number,), {}) for number in range(5)])
        for command in commands:
            grouped_rows.ended(command.job_id)
        broken = False
        jobs.pause(group="g", reason="until they are all back")
        step.send(5)
        jobs.retry([command.job_id for command in reversed(commands)])
        jobs.resume(group="g")
        grouped_rows.wait(lambda: diary.count == 6, "all six")
    assert diary.ended["g"] == list(range(6))


def test_a_job_can_be_moved_to_the_front_and_to_another_group(grouped_rows: Application, diary: Diary) -> None:
    @actor(group="{name}")
    async def step(name: str, number: int) -> None:
        diary.end(current_job().group or "", number)

    jobs.pause(group="a", reason="sort them first")
    jobs.pause(group="b", reason="the same")
    commands = step.send_many([(("a", number), {}) for number in range(6)])
    step.send("b", 9)
    with grouped_rows.worker():
        jobs.move(commands[4].job_id, front=True)
        jobs.move(commands[1].job_id, group="b")
        jobs.resume(group="a")
        jobs.resume(group="b")
        grouped_rows.wait(lambda: diary.count == 7, "all seven")
    assert dict(diary.ended) == {"a": [4, 0, 2, 3, 5], "b": [9, 1]}


def test_numbered_jobs_run_in_the_order_of_their_numbers(grouped_rows: Application, diary: Diary) -> None:
    @actor(group="numbered")
    async def step(number: int) -> None:
        diary.end("n", number)

    with grouped_rows.worker():
        for number in (3, 1, 5, 2):
            step.send_with_options(args=(number,), position=number)
        grouped_rows.wait(lambda: diary.ended["n"] == [1, 2, 3], "those without a gap before them")
        with pytest.raises(PositionTakenError, match="5"):
            step.send_with_options(args=(5,), position=5)
        step.send_with_options(args=(4,), position=4)
        grouped_rows.wait(lambda: diary.ended["n"] == [1, 2, 3, 4, 5], "the others")


def test_a_gap_is_waited_for_as_long_as_the_rule_says(grouped_rows: Application, diary: Diary) -> None:
    @actor(group="gap-1")
    async def step(number: int) -> None:
        diary.end("n", number)

    with grouped_rows.worker():
        step.send_with_options(args=(1,), position=1)
        step.send_with_options(args=(3,), position=3)
        grouped_rows.wait(lambda: diary.ended["n"] == [1, 3], "the one behind the gap")


def test_a_full_group_refuses(grouped_rows: Application) -> None:
    @actor(group="small-{name}")
    async def step(name: str) -> None: ...

    for _ in range(3):
        step.send("a")
    with pytest.raises(GroupFullError, match="3"):
        step.send("a")
    step.send("b")


def test_a_job_knows_its_place(grouped_rows: Application) -> None:
    @actor(group="g")
    async def step() -> None: ...

    jobs.pause(group="g", reason="to count")
    commands = step.send_many([((), {})] * 17)
    job = jobs.get(commands[3].job_id)
    assert job is not None
    assert job.place is not None
    assert (job.place.number, job.place.of) == (4, 17)


def test_the_jobs_behind_one_that_nobody_knows_wait(grouped_rows: Application, diary: Diary) -> None:
    @actor(group="g")
    async def known(number: int) -> None:
        diary.end("g", number)

    @actor(group="g")
    async def gone(number: int) -> None:
        diary.end("g", number)

    stranger = gone.send(0)
    known.send(1)
    del grouped_rows.broker.actors["gone"]
    with grouped_rows.worker():
        assert grouped_rows.ended(stranger.job_id).state == "unhandled"
        grouped_rows.wait(lambda: (group := jobs.group("g")) and group.state == "blocked", "the group to be blocked")
        assert diary.ended["g"] == []

    grouped_rows.broker.declare_actor(gone)
    with grouped_rows.worker():
        grouped_rows.wait(lambda: diary.ended["g"] == [0, 1], "both, in order")
