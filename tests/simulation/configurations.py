"""The small systems that are explored. Many small ones find more than a large one that never ends.

Each says what may happen in it; everything else is the same: two workers, every order of every step.
"""

from __future__ import annotations

import os

from .budget import Budget
from .system import Plan, System

JOB = Plan()

CONFIGURATIONS: tuple[System, ...] = (
    System(
        "publishers die, are slow, or never learn whether the broker has it",
        jobs=(JOB,),
        slow_publishing=True,
        relays="AB",
        victims="AB",
        budget=Budget(faults=2, crashes=2, slow=1, unclear=1),
    ),
    System(
        "a mark comes late, after the job was acked early and its worker lost",
        jobs=(JOB,),
        slow_publishing=True,
        acks_early=True,
        budget=Budget(faults=2, crashes=1, unclear=1, cuts=1),
    ),
    System(
        "relays race for a delayed job, die and are stopped",
        jobs=(Plan(delayed=True),),
        slow_publishing=True,
        relays="AB",
        budget=Budget(faults=1, crashes=1, stops=1, slow=1),
    ),
    System(
        "a job kills its workers, until it is failed",
        jobs=(JOB,),
        victims="AB",
        budget=Budget(faults=3, crashes=3),
    ),
    System(
        "the same on one host, where a dead process is seen at once",
        jobs=(JOB,),
        victims="AB",
        same_host=True,
        max_crashes=2,
        budget=Budget(faults=3, crashes=2, cuts=1),
    ),
    System(
        "retries and snoozes, with second copies of every dispatch",
        jobs=(JOB,),
        victims="AB",
        budget=Budget(faults=1, cuts=1, crashes=1, duplicates=1, retries=2, snoozes=1),
    ),
    System(
        "a long job, acked early, of a worker that is stopped and goes on",
        jobs=(JOB,),
        acks_early=True,
        budget=Budget(faults=2, stops=1, cuts=1, duplicates=1),
    ),
    System(
        "a long job is interrupted by a shutdown",
        jobs=(JOB,),
        acks_early=True,
        budget=Budget(faults=2, crashes=1, cuts=1, wipes=1, shutdowns=1),
    ),
    System(
        "the database is away for longer than the leases last",
        jobs=(JOB,),
        victims="AB",
        budget=Budget(faults=3, outages=1, cuts=1, duplicates=1, crashes=1),
    ),
    System(
        "answers of the database are lost, and errors of ours end a job's life",
        jobs=(JOB,),
        acks_early=True,
        budget=Budget(faults=2, lost_answers=2, errors=1, cuts=1, shutdowns=1),
    ),
    System(
        "messages of another producer are adopted",
        jobs=(Plan(foreign=True), Plan(foreign=True)),
        budget=Budget(faults=1, cuts=1, duplicates=1, crashes=1, stops=1),
    ),
    System(
        "rows are pruned while copies are still under way",
        jobs=(JOB,),
        prunes=True,
        budget=Budget(faults=2, cuts=1, duplicates=1, crashes=1),
    ),
    System(
        "one of the workers does not know the actor",
        jobs=(Plan(known_to="B"),),
        budget=Budget(faults=1, crashes=1, cuts=1, duplicates=1, strangers=2),
    ),
    System(
        "the broker is wiped, and the relay sees too little or too much",
        jobs=(JOB, JOB),
        budget=Budget(faults=1, wipes=1, crashes=1, false_alarms=1),
    ),
    System(
        "the relay is restless: it takes rows for missing again and again",
        jobs=(JOB,),
        restless_relay=3,
        budget=Budget(),
    ),
    System(
        "three jobs, two in each worker's hands",
        jobs=(JOB, JOB, JOB),
        prefetch=2,
        budget=Budget(),
    ),
    System(
        "three jobs, and a connection lost or a worker gone",
        jobs=(JOB, JOB, JOB),
        budget=Budget(faults=1, cuts=1, crashes=1),
    ),
)

DEEP: tuple[System, ...] = (
    System(
        "deep: publishers and a long job, stopped, slow and unclear",
        jobs=(JOB,),
        slow_publishing=True,
        relays="AB",
        acks_early=True,
        budget=Budget(faults=2, crashes=2, stops=1, slow=1, unclear=1),
    ),
    System(
        "deep: a long job, three faults of five kinds",
        jobs=(JOB,),
        acks_early=True,
        budget=Budget(faults=3, stops=1, outages=1, cuts=1, crashes=1, duplicates=1),
    ),
    System(
        "deep: a retry, two faults of four kinds",
        jobs=(JOB,),
        budget=Budget(faults=2, stops=1, outages=1, cuts=1, lost_answers=1, retries=1),
    ),
    System(
        "deep: two jobs, wiped and crashed and wrongly missed",
        jobs=(JOB, JOB),
        budget=Budget(faults=2, wipes=1, crashes=1, false_alarms=1),
    ),
    System(
        "deep: three jobs, two in hand, a connection lost",
        jobs=(JOB, JOB, JOB),
        prefetch=2,
        budget=Budget(faults=1, cuts=1),
    ),
)
"""Some minutes more; run with ``JQ_TEST_DEEP_SIMULATION=1``."""


def configurations() -> tuple[System, ...]:
    """Those that this run explores."""
    return CONFIGURATIONS + (DEEP if os.environ.get("JQ_TEST_DEEP_SIMULATION") else ())
