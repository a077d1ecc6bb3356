"""Whose turn it is: every branch of the order guard's decision."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from jq_actors.job import JobId, JobState
from jq_actors.turns import LONGEST_WAIT, LOOK_AGAIN, GroupView, Leave, Member, Park, Start, Turn, Wait, turn_of

NOW = datetime(2026, 11, 24, tzinfo=UTC)
TICK = timedelta(microseconds=1)
S = JobState


def job(name: str, state: JobState = S.QUEUED, queue: str = "q", due: datetime = NOW, gap: int | None = None) -> Member:
    return Member(JobId(name), state, queue, 1, due, gap)


def turn(*members: Member, of: str = "a", running: int = 0, concurrency: int = 1, paused: str | None = None) -> Turn:
    view = GroupView(members, running, concurrency, paused)
    return turn_of(view, JobId(of), "q", NOW)


@pytest.mark.parametrize("state", [S.QUEUED, S.WAITING, S.RETRYING, S.SCHEDULED])
def test_the_head_starts_when_it_may(state: JobState) -> None:
    head = job("a", state)
    assert turn(head) == Start(head)
    assert turn(head, of="b") == Start(head)


def test_of_several_that_may_start_its_own_job_does() -> None:
    a, b = job("a"), job("b")
    assert turn(a, b, of="b", concurrency=2) == Start(b)
    assert turn(a, b, of="c", concurrency=2) == Start(a)


def test_beside_a_run_the_next_one_starts() -> None:
    a, b = job("a", S.RUNNING), job("b")
    assert turn(a, b, of="c", running=1, concurrency=2) == Start(b)


def test_beside_a_head_that_waits_the_next_one_starts() -> None:
    a, b = job("a", S.RETRYING, due=NOW + TICK), job("b")
    assert turn(a, b, of="b", concurrency=2) == Start(b)


def test_a_paused_group_is_left_whatever_runs() -> None:
    assert turn(job("a"), paused="by ops") == Leave("by ops")
    assert turn(job("a", S.RUNNING), of="b", running=1, paused="by ops") == Leave("by ops")


# -- behind a run


def test_behind_a_run_of_its_own_queue_it_waits() -> None:
    assert turn(job("a", S.RUNNING), of="b", running=1) == Wait(LOOK_AGAIN, "behind job a, which runs")


def test_behind_a_run_that_is_none_of_the_first_it_waits() -> None:
    assert turn(job("a"), running=1) == Wait(LOOK_AGAIN, "behind a job that runs")


def test_behind_runs_of_other_queues_only_it_is_parked() -> None:
    elsewhere, here = job("a", S.RUNNING, "p"), job("b", S.RUNNING)
    assert turn(elsewhere, of="c", running=1) == Park("behind job a, which runs in queue p")
    assert isinstance(turn(elsewhere, here, of="c", running=2, concurrency=2), Wait)


# -- behind one that may not start


def test_behind_one_that_may_start_in_another_queue_it_is_parked() -> None:
    assert turn(job("a", queue="p"), of="b") == Park("behind job a, which waits in queue p")


def test_behind_a_gap_it_is_parked() -> None:
    assert turn(job("a", gap=3)) == Park("position 3 has not been sent")
    assert turn(job("a", gap=3, queue="p"), of="b") == Park("position 3 has not been sent")


@pytest.mark.parametrize("state", [S.RETRYING, S.SCHEDULED])
def test_behind_one_that_is_due_soon_it_waits(state: JobState) -> None:
    due = NOW + LONGEST_WAIT
    reason = f"blocked by job a, {state.value} until 2026-11-24T00:01:00+00:00"
    assert turn(job("a", state, due=due), of="b") == Wait(LONGEST_WAIT, reason)


def test_behind_one_that_is_due_late_the_lane_is_left() -> None:
    due = NOW + LONGEST_WAIT + TICK
    assert turn(job("a", S.RETRYING, due=due), of="b") == Leave(
        "blocked by job a, retrying until 2026-11-24T00:01:00+00:00"
    )


def test_behind_one_that_no_worker_knows_the_lane_is_left() -> None:
    assert turn(job("a", S.UNHANDLED), of="b") == Leave("blocked by job a, which no worker can run")


@pytest.mark.parametrize(
    "head",
    [
        job("a", S.UNHANDLED, "p"),
        job("a", S.RETRYING, "p", NOW + timedelta(hours=1)),
        job("a", S.RETRYING, "p", NOW + TICK),
    ],
)
def test_behind_one_of_another_queue_it_is_parked_and_never_left(head: Member) -> None:
    # Whoever moves that one offers the lane of its own queue: left, this one would stay where it is.
    assert isinstance(turn(head, of="b"), Park)


def test_what_runs_is_not_what_it_waits_for() -> None:
    runs, stuck = job("a", S.RUNNING), job("b", S.UNHANDLED)
    assert turn(runs, stuck, of="c", running=1, concurrency=2) == Leave("blocked by job b, which no worker can run")


def test_without_anybody_before_it_its_place_is_not_known() -> None:
    assert turn() == Wait(LOOK_AGAIN, "its place is not known")
    # It changed between two reads: counted as not running, and seen running.
    assert turn(job("a", S.RUNNING), of="b") == Wait(LOOK_AGAIN, "its place is not known")
