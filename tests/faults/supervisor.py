"""What keeps workers running: a service manager in small."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from tests.support.workers import WorkerProcess

LOOK_EVERY = 0.05
STOP_TIMEOUT = 30.0


class Supervisor:
    """Keeps one worker running for each of ``starts``, which starts it; starts anew what has died.

    Leaving it kills them all: a fault test is over when its rows are right, and draining has tests of its own.
    """

    def __init__(self, starts: Sequence[Callable[[], WorkerProcess]]) -> None:
        self.workers = [start() for start in starts]
        self.ended: list[WorkerProcess] = []
        """Those that died, in their order."""
        self._starts = starts
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave_alone()
        for worker in self.workers:
            worker.close()
        if error is not None:
            error.add_note(self.told())

    def leave_alone(self) -> None:
        """Start nothing any more."""
        self._is_over.set()
        self._thread.join(STOP_TIMEOUT)

    def drain(self) -> list[int]:
        """SIGTERM to all; their exit codes."""
        self.leave_alone()
        for worker in self.workers:
            worker.terminate()
        return [worker.wait(STOP_TIMEOUT) for worker in self.workers]

    def told(self) -> str:
        """What all of them have printed, the dead ones too, each to its last lines."""
        return "\n".join(f"--- {worker}\n{worker.text[-4000:]}" for worker in (*self.ended, *self.workers))

    def _watch(self) -> None:
        while not self._is_over.wait(LOOK_EVERY):
            for index, worker in enumerate(self.workers):
                if not worker.running:
                    worker.close()  # what is left of its session
                    self.ended.append(worker)
                    self.workers[index] = self._starts[index]()
