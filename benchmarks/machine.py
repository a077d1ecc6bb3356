"""Facts about the machine of a run, and how much of it others used during the run."""

from __future__ import annotations

import platform
import subprocess
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from .servers import broker_version, database_version
from .settings import Settings

OUR_LIBRARIES = ("dramatiq", "aio-pika", "aiormq", "SQLAlchemy", "asyncpg", "uvloop")
PEERS = ("dramatiq", "pika", "taskiq", "taskiq-aio-pika", "procrastinate", "psycopg")

QUIET = 20.0
"""Per cent of processor time in use below which the machine counts as quiet, for"""
QUIET_FOR = 0.5
"""seconds."""


def facts(settings: Settings) -> dict[str, str]:
    """Name and value, in reading order."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{_processor()}, {psutil.cpu_count()} cores",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "broker": broker_version(settings.amqp_url),
        "PostgreSQL": database_version(settings.database_url),
        "peers": _versions_elsewhere(settings.peers_python),
        "ours": ", ".join(f"{name} {version(name)}" for name in OUR_LIBRARIES),
        "commit": _commit(),
    }


class StolenTime:
    """The share of processor time since construction that the hypervisor gave to other machines."""

    def __init__(self) -> None:
        self._before = psutil.cpu_times()

    def share(self) -> float:
        """0 … 1; 0 if the system does not report it."""
        now = psutil.cpu_times()
        elapsed = sum(now) - sum(self._before)
        stolen = getattr(now, "steal", 0.0) - getattr(self._before, "steal", 0.0)
        return float(stolen / elapsed) if elapsed else 0.0


def wait_for_quiet(patience: float) -> None:
    """Wait until the machine is quiet, at most ``patience`` seconds, since it may be shared."""
    give_up = time.monotonic_ns() + int(patience * 1e9)
    while time.monotonic_ns() < give_up and psutil.cpu_percent(interval=QUIET_FOR) > QUIET:
        pass


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _versions_elsewhere(python: Path) -> str:
    if not python.exists():
        return "none measured"
    program = f"from importlib.metadata import version; print(', '.join(f'{{n}} {{version(n)}}' for n in {PEERS}))"
    return subprocess.run([python, "-c", program], check=True, capture_output=True, text=True).stdout.strip()


def _commit() -> str:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
