"""Who a worker is: an identity unique to one boot of one process, and whether such a process is still alive."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

import psutil

from jq_actors.clock import Clock

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PID_NAMESPACE = Path("/proc/self/ns/pid")
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """One boot of one worker process. Host names and pids come back; the id never does (A50)."""

    id: str
    name: str
    """What the operator called it (``--id``), else ``host:pid``; for people only."""
    host: str
    """Host name, boot and pid namespace: pids are comparable only among workers with the same one."""
    pid: int
    process_started: float
    """See `process_start`; tells a process from a later one with its pid."""


def identify(clock: Clock, name: str | None = None) -> WorkerIdentity:
    """The identity of this process, now."""
    pid = os.getpid()
    return WorkerIdentity(
        id=f"{clock.random_bits(64):016x}",
        name=name or f"{socket.gethostname()}:{pid}",
        host=_host(),
        pid=pid,
        process_started=process_start(pid) or 0.0,
    )


def process_start(pid: int) -> float | None:
    """When the process started, in a unit of the machine's own; ``None``: it is gone, or hidden from us.

    On Linux clock ticks since the boot, as the kernel has them (proc(5), ``/proc/pid/stat``, field 22). psutil turns
    them into a time of day with the boot time of now, which moves with each step of the clock: a living process would
    look like another one.
    """
    if not _PROC.joinpath("self", "stat").exists():
        return _start_by_psutil(pid)
    try:
        stat = _PROC.joinpath(str(pid), "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # a process may call itself anything, parentheses too
    return None if fields[0] in "ZX" else float(fields[19])


def is_known_dead(host: str, pid: int, process_started: float) -> bool:
    """Whether that process is certainly gone. ``False`` also means: this process cannot tell."""
    if host != _host():
        return False
    started = process_start(pid)
    if started is not None:
        return started != process_started
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False  # there, of another user, and hidden (proc(5), hidepid)
    return _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False  # hidden; or gone since a moment ago, which the next look sees


def _start_by_psutil(pid: int) -> float | None:
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None


def _host() -> str:
    # Two containers may share a host name but not their pids (Linux: the pid namespace). The first namespace has the
    # same number on every machine: the boot id tells machines with one host name apart.
    boot = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else "boot"
    namespace = os.readlink(_PID_NAMESPACE) if _PID_NAMESPACE.exists() else "pid"
    return f"{socket.gethostname()}/{boot}/{namespace}"
