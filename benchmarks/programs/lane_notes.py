"""Records which lanes a worker serves: the counterpart of `probe` for lanes, which only jq_actors has."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from jq_actors.events import Events, LaneClosed, LaneOpened

from .probe import WRITE_INTERVAL

SUFFIX = ".lanes"


@dataclass
class Lanes:
    """What one or more worker processes recorded. Times are nanoseconds of CLOCK_MONOTONIC."""

    opened: int = 0
    closed: int = 0
    first: int = 0
    """When the first one was opened."""
    last: int = 0
    """When the latest one was opened."""

    @property
    def served(self) -> int:
        """How many lanes are served now."""
        return self.opened - self.closed


class LaneNotes:
    """Counts the lanes of this process into ``folder``, one file per process, named by its pid."""

    def __init__(self, folder: Path, events: Events) -> None:
        self._folder, self._lanes = folder, Lanes()
        events.subscribe(LaneOpened, self._on_opened)
        events.subscribe(LaneClosed, self._on_closed)

    def _on_opened(self, event: LaneOpened) -> None:
        self._lanes.last = time.monotonic_ns()
        if self._lanes.opened == 0:
            self._lanes.first = self._lanes.last
            threading.Thread(target=self._write_forever, name="bench-lanes", daemon=True).start()
        self._lanes.opened += 1

    def _on_closed(self, event: LaneClosed) -> None:
        self._lanes.closed += 1

    def _write_forever(self) -> None:
        target = self._folder / f"{os.getpid()}{SUFFIX}"
        draft = target.with_suffix(".draft-lanes")
        while True:
            draft.write_text(json.dumps(asdict(self._lanes)))
            draft.replace(target)
            time.sleep(WRITE_INTERVAL)


def read_lanes(folder: Path) -> Lanes:
    """The combined records of all worker processes."""
    each = [Lanes(**json.loads(path.read_text())) for path in folder.glob(f"*{SUFFIX}")]
    return Lanes(
        opened=sum(one.opened for one in each),
        closed=sum(one.closed for one in each),
        first=min((one.first for one in each), default=0),
        last=max((one.last for one in each), default=0),
    )
