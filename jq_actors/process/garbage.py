"""Python's collector of cyclic garbage, in a worker process.

By default it looks at the youngest objects after every 700 new ones, some two hundred times a second in a busy worker,
and in a full collection at all that the application has imported. That was a fifth of the CPU of a job.
"""

from __future__ import annotations

import gc

YOUNG = 20_000
"""New objects between two looks: some MB at most that wait for their collection."""


def collect_less_often() -> None:
    """Leave what was imported out of each collection, and collect after ``YOUNG`` new objects at the earliest.

    An application that has switched the collector off, or has set it higher, keeps what it set.
    """
    young, *older = gc.get_threshold()
    if 0 < young < YOUNG:
        gc.set_threshold(YOUNG, *older)
    gc.freeze()
