"""A folder with actors and a configuration, and worker processes that use it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.application import Place
from tests.support.waiting import eventually_sync
from tests.support.workers import WorkerProcess

ACTORS = """
import asyncio, pathlib, time
from jq_actors import actor, current_job

HERE = pathlib.Path(__file__).parent

def note(text):
    with (HERE / "notes").open("a") as notes:
        notes.write(text + "\\n")

@actor
async def sleeps(name: str, seconds: float) -> str:
    note(f"start {name}")
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        note(f"cancelled {name}")
        raise
    note(f"end {name}")
    return name

@actor
def sleeps_sync(name: str, seconds: float) -> str:
    note(f"start {name}")
    until = time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            time.sleep(0.05)
    except BaseException:
        note(f"interrupted {name}")
        raise
    note(f"end {name}")
    return name
"""

StartWorker = Callable[..., WorkerProcess]


class Site:
    """A folder with actors and a configuration, and processes that use it."""

    def __init__(self, place: Place, folder: Path, start: StartWorker) -> None:
        self.place, self.folder, self._start = place, folder, start
        (folder / "myjobs.py").write_text(ACTORS)
        (folder / "jq.json").write_text(json.dumps(place.configuration))  # JSON is YAML

    def start(self, *command: str, **env: str) -> WorkerProcess:
        return self._start(*command, env={"JQ_CONFIG": str(self.folder / "jq.json"), **env})

    @property
    def notes(self) -> list[str]:
        notes = self.folder / "notes"
        return notes.read_text().splitlines() if notes.exists() else []

    def wait_for_note(self, note: str) -> None:
        eventually_sync(lambda: note in self.notes, 30, f"{note!r} among the notes")

    def actors(self) -> Any:
        """The module of the actors, bound to the application that is running now."""
        namespace: dict[str, Any] = {"__file__": str(self.folder / "myjobs.py"), "__name__": "myjobs"}
        exec(compile((self.folder / "myjobs.py").read_text(), "myjobs.py", "exec"), namespace)
        return namespace
