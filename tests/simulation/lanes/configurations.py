"""The small systems of groups that are explored: two workers each, and one group, if nothing else is said.

Relay point 6 is off in all of them but the last few: these are the faults, and the only ones, that need it.
"""

from __future__ import annotations

import os

from tests.simulation.budget import Budget

from .system import LanePlan, System

TWO_GROUPS = (LanePlan("g"), LanePlan("h"))
TWO_QUEUES = (LanePlan(queue="p"), LanePlan(queue="q"))
TWO_SEATS = (LanePlan(seats=2),)

GUARDED: tuple[System, ...] = (
    System("two jobs, every step of everybody", (0, 0), Budget()),
    System("one job, two crashes", (0,), Budget(faults=2, crashes=2)),
    System("two jobs and a crash", (0, 0), Budget(faults=1, crashes=1), quick="P"),
    System("idle lanes are deleted while somebody publishes", (0, 0), Budget(deletes=2), quick="R", quantum=1),
    System("two groups take turns", (0, 1, 0), Budget(), TWO_GROUPS, quick="PR", quantum=1),
    System(
        "second copies and tokens, and a broker that does not keep the order",
        (0, 0),
        Budget(faults=1, duplicates=1, extra_tokens=1, cuts=1, reorders=1),
        quick="PR",
    ),
    System("a delivery comes while its lane is cancelled", (0, 0), Budget(races=1, deletes=1), quick="PR"),
    System("a worker is stopped and goes on", (0,), Budget(faults=1, stops=1)),
    System("a shutdown", (0, 0), Budget(shutdowns=1), quick="P"),
    System("the channel of the tokens dies", (0, 0), Budget(faults=1, lobby_cuts=1), quick="PR"),
    System(
        "a retry keeps its turn, its worker its connection or not", (0, 0), Budget(1, cuts=1, retries=1), quick="PR"
    ),
    System("a head retries for long, and its lane is left", (0, 0), Budget(long_retries=1), quick="P"),
    System("no worker knows the head's actor, for a while", (0, 0), Budget(strangers=1), quick="PR"),
    System("retries may be overtaken", (0, 0), Budget(retries=1), overtake=True, quick="PR"),
    System("a group is paused and resumed", (0, 0), Budget(pauses=1), quick="PR"),
    System("a failed job is retried, behind it the next one", (0, 0), Budget(failures=1, replays=1), quick="PR"),
    System("the job that all wait for is cancelled", (0, 0), Budget(strangers=1, cancels=1), workers="A", quick="PRO"),
    System("two queues, every step of everybody", (0, 1), Budget(), TWO_QUEUES),
    System("two queues, and a head that retries for long", (0, 1), Budget(long_retries=1), TWO_QUEUES, quick="PR"),
    System("two queues, paused and resumed", (0, 1), Budget(pauses=1), TWO_QUEUES, workers="A", slots=2, quick="PR"),
    System("two run at once", (0, 0, 0), Budget(), TWO_SEATS, concurrency=2, quick="PR"),
    System("two run at once, and a crash", (0, 0), Budget(1, crashes=1), TWO_SEATS, concurrency=2, quick="PR"),
    System("numbered jobs come in any order", (0, 0), Budget(retries=1), numbered=True, quick="PR"),
)

UNGUARDED: tuple[System, ...] = (
    System("no rows: two jobs and a crash", (0, 0), Budget(faults=1, crashes=1), rows=False),
    System("no rows: lanes are deleted, tokens are too many", (0, 0), Budget(1, extra_tokens=1, deletes=2), rows=False),
    System("no rows: two groups take turns", (0, 1, 0), Budget(), TWO_GROUPS, rows=False, quantum=1),
    System("no rows: two groups and a crash", (0, 1), Budget(1, crashes=1), TWO_GROUPS, rows=False, quantum=1),
    System("no rows: own tokens come back", (0, 0), Budget(1, crashes=1), rows=False, slots=2, quantum=1, quick="P"),
    System("no rows: a retry, and a shutdown", (0, 0), Budget(retries=1, shutdowns=1), rows=False, quick="P"),
    System("no rows: the channel of the tokens dies", (0, 0), Budget(faults=1, lobby_cuts=1), rows=False),
)
"""Without persistence. Left out is what breaks the order there: see docs/protocol.md."""

SWEPT: tuple[System, ...] = (
    System("the broker is wiped", (0, 0), Budget(faults=1, wipes=1), quick="PR", finds_still_groups=True),
    System(
        "whoever resumes a group dies before the offer",
        (0,),
        Budget(faults=1, crashes=1, pauses=1),
        quick="PR",
        finds_still_groups=True,
    ),
    System(
        "a worker crashes whose tokens are lost",
        (0,),
        Budget(faults=2, lobby_cuts=1, crashes=1),
        quick="P",
        finds_still_groups=True,
    ),
)
"""What relay point 6 is there for."""

DEEP: tuple[System, ...] = (
    System("deep: two jobs, every step, and a crash", (0, 0), Budget(faults=1, crashes=1)),
    System("deep: three jobs take turns, and a crash", (0, 0, 0), Budget(1, crashes=1), quick="PR", quantum=1),
    System("deep: two queues and a crash", (0, 1), Budget(faults=1, crashes=1), TWO_QUEUES, quick="PR"),
    System("deep: two queues, a job is retried", (0, 1), Budget(failures=1, replays=1), TWO_QUEUES, quick="PR"),
    System("deep: two queues, a job is cancelled", (0, 1), Budget(cancels=1), TWO_QUEUES, quick="PR"),
    System("deep: a retry and a crash", (0, 0), Budget(1, crashes=1, retries=1), quick="PR"),
    System(
        "deep: three, two at once, and a crash", (0, 0, 0), Budget(1, crashes=1), TWO_SEATS, concurrency=2, quick="PR"
    ),
    System("deep: three jobs, out of order", (0, 0, 0), Budget(1, duplicates=1, cuts=1, reorders=1), quick="PR"),
    System("deep: the job that all wait for is cancelled", (0, 0), Budget(strangers=1, cancels=1), quick="PRO"),
    System("deep: three jobs in two queues", (0, 1, 0), Budget(), TWO_QUEUES, quick="PR"),
    System("deep: two queues, paused and resumed", (0, 1), Budget(pauses=1), TWO_QUEUES, quick="PRO"),
    System("deep: two faults, out of order", (0, 0), Budget(2, 0, 1, duplicates=1, reorders=1), quick="PR"),
    System("deep: paused, every step", (0, 0), Budget(pauses=1)),
    System("deep: numbered, three jobs", (0, 0, 0), Budget(), numbered=True, quick="PR"),
    System("deep: no rows, three jobs take turns, and a crash", (0, 0, 0), Budget(1, crashes=1), rows=False, quantum=1),
    System(
        "deep: no rows, everything at once",
        (0, 0),
        Budget(faults=1, crashes=1, extra_tokens=1, deletes=1, shutdowns=1),
        rows=False,
    ),
)
"""Some minutes more; run with ``JQ_TEST_DEEP_SIMULATION=1``."""


def configurations() -> tuple[System, ...]:
    """Those that this run explores."""
    every = GUARDED + UNGUARDED + SWEPT
    return every + (DEEP if os.environ.get("JQ_TEST_DEEP_SIMULATION") else ())
