"""One run at a time on a machine: two would share queues, databases and processors."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from .settings import FOLDER


@contextmanager
def alone() -> Iterator[None]:
    """Hold the machine's benchmark lock; exit the program if another run holds it."""
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(f"Another benchmark is running here; it holds {lock.name}.") from None
        yield
