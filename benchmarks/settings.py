"""Locations, and the settings that are the same for every contestant."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".bench"
"""Everything that a run leaves behind: the peers' environment, built programs, logs. Not in git."""

PROCESSES = 2
THREADS = 8
"""Worker threads per process: Dramatiq's default, used for Dramatiq and for our sync actors."""
CONCURRENCY = 300
"""Concurrent and prefetched async jobs per process, where the contestant allows setting it."""


@dataclass(frozen=True)
class Settings:
    """The servers of a run, and its limits."""

    amqp_url: str
    database_url: str
    """A database of the server on which others are created; it stays untouched. Empty if there is no server."""
    deadline: float = 120.0
    """Seconds that one drain may last; then the rate so far counts, and the table says so."""
    patience: float = 20.0
    """Seconds to wait, at most, for a quiet machine before each sending and each drain."""
    our_python: Path = Path(sys.executable)
    peers_python: Path = FOLDER / "peers" / "bin" / "python"
