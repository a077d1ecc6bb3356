"""Where everything is, and what is the same for every contestant."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".bench"
"""Everything that a run leaves behind: the peers' environment, programs that were built, logs. Not in git."""

PROCESSES = 2
THREADS = 8
"""Worker threads a process: Dramatiq's own default, for it and for our sync actors."""
CONCURRENCY = 300
"""Async jobs at once and prefetched, a process, where a contestant lets one say."""


@dataclass(frozen=True)
class Settings:
    """The servers of a run, and its limits."""

    amqp_url: str
    database_url: str
    """A database of the server in which others may be created; nothing is written into it. Empty: there is none."""
    deadline: float = 120.0
    """Seconds that one drain may last; after that, the rate of what was done counts and the table says so."""
    patience: float = 20.0
    """Seconds to wait, at most, for a quiet machine before each sending and each drain."""
    our_python: Path = Path(sys.executable)
    peers_python: Path = FOLDER / "peers" / "bin" / "python"
