"""Who a worker is: an identity unique to one boot of one process, and whether such a process still lives."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

import psutil

from .clock import Clock


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """One boot of one worker process. Host names and pids come back; the id never does (A50)."""

    id: str
    name: str
    """What the operator called it (``--id``), else ``host:pid``; for people only."""
    host: str
    """Host name and pid namespace: pids are comparable only among workers with the same one."""
    pid: int
    process_started: float
    """When the process started, seconds since the epoch; tells it from a later one with its pid."""


def identify(clock: Clock, name: str | None = None) -> WorkerIdentity:
    """The identity of this process, now."""
    pid = os.getpid()
    return WorkerIdentity(
        id=f"{clock.random_bits(64):016x}",
        name=name or f"{socket.gethostname()}:{pid}",
        host=_host(),
        pid=pid,
        process_started=psutil.Process(pid).create_time(),
    )


def is_known_dead(host: str, pid: int, process_started: float) -> bool:
    """Whether that process surely does not live any more. ``False`` also means: cannot tell from here."""
    if host != _host():
        return False
    try:
        process = psutil.Process(pid)
        return process.create_time() != process_started or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _host() -> str:
    # Two containers may share a host name but not their pids (Linux: the pid namespace's inode).
    namespace = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()}/{os.readlink(namespace) if namespace.exists() else 'pid'}"
