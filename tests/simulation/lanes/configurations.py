"""The small systems of groups that are explored: two workers each, and one group, if nothing else is said.

Groups without rows: the lane alone gives the order. Left out is what breaks it there: see docs/protocol.md, and
``overlaps``, where nothing but the end of all jobs is asked for.
"""

from __future__ import annotations

import os

from tests.simulation.budget import Budget

from .system import LanePlan, System

TWO_GROUPS = (LanePlan("g"), LanePlan("h"))
TWO_SEATS = (LanePlan(seats=2),)

ORDERED: tuple[System, ...] = (
    System("two jobs, every step of everybody", (0, 0), Budget()),
    System("two jobs and a crash", (0, 0), Budget(faults=1, crashes=1)),
    System("one job, two crashes", (0,), Budget(faults=2, crashes=2)),
    System("lanes are deleted, tokens are too many", (0, 0), Budget(1, extra_tokens=1, deletes=2)),
    System("idle lanes are deleted, and handed over", (0, 0), Budget(deletes=2), quantum=1),
    System("a delivery comes while its lane is cancelled", (0, 0), Budget(races=1, deletes=1)),
    System("two groups take turns", (0, 1, 0), Budget(), TWO_GROUPS, quantum=1),
    System("two groups and a crash", (0, 1), Budget(1, crashes=1), TWO_GROUPS, quantum=1),
    System("own tokens come back", (0, 0), Budget(1, crashes=1), slots=2, quantum=1, quick=True),
    System("a retry, and a shutdown", (0, 0), Budget(retries=1, shutdowns=1), quick=True),
    System("the channel of the tokens dies", (0, 0), Budget(faults=1, lobby_cuts=1)),
    System("second copies", (0, 0), Budget(faults=1, duplicates=1)),
    System("two run at once, and a crash", (0, 0), Budget(1, crashes=1), TWO_SEATS, concurrency=2, quick=True),
    System("two send at once", (0, 0), Budget(faults=1, crashes=1), at_once=True),
)
"""With the order, and without overlap."""

UNORDERED: tuple[System, ...] = (
    System("a worker loses its connection", (0, 0), Budget(faults=1, cuts=1), overlaps=True),
    System("a worker is stopped and goes on", (0, 0), Budget(faults=1, stops=1), overlaps=True, quick=True),
    System(
        "a broker that does not keep the order",
        (0, 0),
        Budget(faults=2, cuts=1, reorders=1),
        overlaps=True,
        quick=True,
    ),
)
"""No lane is forgotten, whatever becomes of the order."""

DEEP: tuple[System, ...] = (
    System("deep: three jobs take turns, and a crash", (0, 0, 0), Budget(1, crashes=1), quantum=1),
    System(
        "deep: everything at once",
        (0, 0),
        Budget(faults=1, crashes=1, extra_tokens=1, deletes=1, shutdowns=1),
    ),
)
"""Some minutes more; run with ``JQ_TEST_DEEP_SIMULATION=1``."""


def configurations() -> tuple[System, ...]:
    """Those that this run explores."""
    every = ORDERED + UNORDERED
    return every + (DEEP if os.environ.get("JQ_TEST_DEEP_SIMULATION") else ())
