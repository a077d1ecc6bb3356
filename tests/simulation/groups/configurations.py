"""The small systems of groups that are explored: two workers and one group with one place, if nothing else is said."""

from __future__ import annotations

import os

from jq_actors.model.group_rules import OnFailure
from tests.simulation.budget import Budget

from .system import Plan, System

JOB = Plan()
DELAYED, FOREIGN, OF_H = Plan(delayed=True), Plan(foreign=True), Plan(group=1)
NUMBERED = (Plan(position=1), Plan(position=2), Plan(position=3))
NO_SECOND = (Plan(position=1), Plan(position=2, withheld=True), Plan(position=3))
DELAYED_SECOND = (Plan(position=1), Plan(position=2, delayed=True), Plan(position=3))
ALL_B = Plan(served_by="B")

PLAIN: tuple[System, ...] = (
    System("three jobs in one turn, or passed on after each", (JOB, JOB, JOB), Budget(), quick="", quantum=2),
    System("two groups take turns", (JOB, OF_H, JOB), Budget(), groups=2, quantum=2),
    System("a queue that one of the workers does not consume", (JOB, ALL_B, JOB), Budget(1, crashes=1)),
    System("a retry keeps its place, whatever is moved", (JOB, JOB, JOB), Budget(retries=1, moves=1)),
    System("retries may be overtaken, and the group is paused", (JOB, JOB), Budget(retries=1, pauses=1), overtake=True),
    System("retries may be overtaken, two of three", (JOB, JOB), Budget(retries=2, moves=1), overtake=True),
    System("a failed job is retried behind others", (JOB, JOB, JOB), Budget(failures=1, replays=1)),
    System("a failed job is retried, while a later one retries", (JOB, JOB), Budget(failures=1, replays=1, retries=1)),
    System("a failure pauses the group", (JOB, JOB), Budget(failures=2), on_failure=OnFailure.PAUSE),
    System(
        "a failure cancels the rest", (JOB, JOB, JOB), Budget(failures=1, replays=1), on_failure=OnFailure.CANCEL_REST
    ),
    System("a job that nobody can decode, and moves", (JOB, JOB, JOB), Budget(undecodable=1, moves=1)),
    System("a job that nobody can run, and a pause", (JOB, JOB), Budget(undecodable=1, strangers=1, pauses=1)),
    System("what does not run is cancelled", (JOB, JOB, JOB), Budget(undecodable=1, cancels=1)),
    System("delayed jobs take their places when they are due", (JOB, DELAYED, JOB), Budget(pauses=1)),
    System("a delayed job is moved", (JOB, DELAYED), Budget(moves=1), groups=2),
    System("jobs are moved to another group, or paused", (JOB, OF_H), Budget(moves=1, pauses=1), groups=2),
    System("a shutdown, a pause", (JOB, JOB), Budget(shutdowns=1, pauses=1)),
    System("a shutdown, after a failed job was retried", (JOB, JOB), Budget(shutdowns=1, failures=1, replays=1)),
    System("two at once", (JOB, JOB, JOB), Budget(retries=1), concurrency=2),
    System("two at once, and moves", (JOB, JOB, JOB), Budget(moves=1), concurrency=2),
    System(
        "two at once, a failure cancels the rest",
        (JOB, JOB, JOB),
        Budget(failures=1),
        concurrency=2,
        on_failure=OnFailure.CANCEL_REST,
    ),
    System("numbered jobs come in any order", NUMBERED, Budget(pauses=1)),
    System("a number does not come", NO_SECOND, Budget(cancels=1)),
    System("a number does not come, and is not waited for", NO_SECOND, Budget(pauses=1), gaps_end=True),
    System("numbers are cancelled, and retried", NUMBERED[:2], Budget(cancels=1, replays=1)),
    System("a number is delayed, two run at once", DELAYED_SECOND, Budget(cancels=1), concurrency=2),
)
"""Nothing breaks."""

FAULTY: tuple[System, ...] = (
    System("a worker crashes in the middle of a chain", (JOB, JOB, JOB), Budget(1, crashes=1)),
    System("a worker crashes in a paused group", (JOB, JOB), Budget(1, crashes=1, pauses=1)),
    System("a worker crashes, a failed job was retried", (JOB, JOB), Budget(1, crashes=1, failures=1, replays=1)),
    System("a worker crashes, two at once", (JOB, JOB), Budget(1, crashes=1), concurrency=2),
    System("a worker crashes, numbered", NUMBERED[:2], Budget(1, crashes=1)),
    System(
        "a job kills its workers, until it is failed, and the rest cancelled",
        (JOB, JOB),
        Budget(2, crashes=2),
        max_crashes=2,
        victims="AB",
        on_failure=OnFailure.CANCEL_REST,
    ),
    System("publishers die, and jobs are moved", (JOB, JOB), Budget(1, crashes=1, moves=1), quick=""),
    System(
        "a worker dies before it has published what it released",
        (JOB, JOB),
        Budget(1, crashes=1, moves=1),
        quick="PR",
        quantum=1,
    ),
    System("a connection is lost", (JOB, JOB, JOB), Budget(1, cuts=1), prefetch=2),
    System("a long turn, acked early", (JOB, JOB), Budget(2, crashes=1, cuts=1), acks_early=True),
    System("a worker is stopped and goes on", (JOB, JOB), Budget(1, stops=1)),
    System("an answer of the database is lost", (JOB, JOB, JOB), Budget(1, lost_answers=1, pauses=1)),
    System("an answer is lost, and its worker shut down", (JOB, JOB), Budget(1, lost_answers=1, shutdowns=1)),
    System("an error of ours ends a run's life", (JOB, JOB), Budget(1, errors=1, pauses=1)),
    System("there are second copies", (JOB, JOB), Budget(1, duplicates=1, pauses=1)),
    System("messages of another producer are admitted", (FOREIGN, FOREIGN), Budget(1, crashes=1)),
    System("the broker is wiped, two groups", (JOB, OF_H), Budget(1, wipes=1, moves=1), groups=2),
)

DEEP: tuple[System, ...] = (
    System("deep: stopped and paused", (JOB, JOB), Budget(1, stops=1, pauses=1)),
    System("deep: stopped, three jobs", (JOB, JOB, JOB), Budget(1, stops=1)),
    System("deep: overtaken and moved", (JOB, JOB, JOB), Budget(retries=1, moves=1), overtake=True),
    System("deep: crash and moves", (JOB, JOB, JOB), Budget(1, crashes=1, moves=1)),
    System("deep: crash, retry, pause", (JOB, JOB), Budget(1, crashes=1, retries=1, pauses=1)),
    System("deep: two at once, crash", (JOB, JOB, JOB), Budget(1, crashes=1), concurrency=2),
    System("deep: two at once, paused", (JOB, JOB, JOB), Budget(pauses=1), concurrency=2),
    System("deep: two at once, undecodable, moved", (JOB, JOB, JOB), Budget(undecodable=1, moves=1), concurrency=2),
    System("deep: two groups, three jobs moved", (JOB, OF_H, JOB), Budget(moves=1), groups=2),
    System("deep: two groups, three jobs, a crash", (JOB, OF_H, JOB), Budget(1, crashes=1), groups=2),
    System("deep: two groups, three jobs, wiped", (JOB, OF_H, JOB), Budget(1, wipes=1), groups=2),
    System(
        "deep: publishers of both workers die", (JOB, JOB), Budget(2, crashes=2), quick="R", quantum=1, victims="AB"
    ),
    System(
        "deep: a publisher dies, retried by an operator",
        (JOB, JOB),
        Budget(1, crashes=1, failures=1, replays=1),
        quick="PR",
        quantum=1,
    ),
    System("deep: slow relay, moves, a retry", (JOB, JOB), Budget(1, crashes=1, moves=1, retries=1), quick="PAB"),
    System("deep: a lost answer and a crash", (JOB, JOB, JOB), Budget(2, lost_answers=1, crashes=1)),
    System("deep: numbered, cancelled, overtaken", NUMBERED, Budget(retries=1, cancels=1), overtake=True),
    System("deep: numbered, two at once, paused", NUMBERED, Budget(pauses=1), concurrency=2),
    System("deep: of another producer, three", (FOREIGN, FOREIGN, JOB), Budget(1, crashes=1)),
    System("deep: a shutdown, moves, a pause", (JOB, JOB), Budget(shutdowns=1, moves=1, pauses=1)),
)
"""Some minutes more; run with ``JQ_TEST_DEEP_SIMULATION=1``."""


def configurations() -> tuple[System, ...]:
    """Those that this run explores."""
    return PLAIN + FAULTY + (DEEP if os.environ.get("JQ_TEST_DEEP_SIMULATION") else ())
