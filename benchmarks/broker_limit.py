"""The broker's own limit, measured with a C client that costs almost nothing, built from programs/broker_limit.c."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .machine import wait_for_quiet
from .result import Measurement, Metric
from .servers import delete_queues
from .settings import FOLDER, Settings
from .stage import MeasurementError

SOURCE = Path(__file__).parent / "programs" / "broker_limit.c"
PROGRAM = FOLDER / "broker_limit"
PACKAGES = ("gcc", "libc6-dev", "librabbitmq-dev")
"""Debian packages."""
QUEUE = "jq-bench.limit"
SIZE = 400
"""Bytes of a message: about the size of one of our jobs."""


def measure_consuming(messages: int, settings: Settings) -> Measurement:
    """Consume ``messages`` queued messages, with one ack per hundred."""
    with _queue(settings) as program:
        _run(program, "publish", settings, messages, SIZE)
        wait_for_quiet(settings.patience)
        return Measurement({Metric.RATE: messages / _run(program, "consume", settings, messages)})


def measure_publishing(messages: int, settings: Settings) -> Measurement:
    """Publish ``messages`` persistent messages, each confirmed, a thousand in flight."""
    with _queue(settings) as program:
        wait_for_quiet(settings.patience)
        return Measurement({Metric.RATE: messages / _run(program, "publish", settings, messages, SIZE)})


@contextmanager
def _queue(settings: Settings) -> Iterator[str]:
    """The program; the queue is deleted before and after."""
    program = str(_built())
    delete_queues(settings.amqp_url, [QUEUE])
    try:
        yield program
    finally:
        delete_queues(settings.amqp_url, [QUEUE])


def _built() -> Path:
    if not PROGRAM.exists() or PROGRAM.stat().st_mtime < SOURCE.stat().st_mtime:
        if _compile() and _can_install():
            print(f"installing {', '.join(PACKAGES)} for {SOURCE.name}", file=sys.stderr)
            for order in (["update", "-qq"], ["install", "-qqy", *PACKAGES]):
                subprocess.run(["apt-get", *order], stdout=subprocess.DEVNULL, check=False)
        if problem := _compile():
            advice = f"on Debian: apt-get install {' '.join(PACKAGES)}"
            raise MeasurementError(f"{SOURCE.name} cannot be built; {advice}\n{problem}")
    return PROGRAM


def _compile() -> str:
    """Build the program; returns the error text, or an empty string."""
    command = ["cc", "-O2", "-Wall", "-o", str(PROGRAM), str(SOURCE), "-lrabbitmq"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "there is no C compiler"
    return "" if done.returncode == 0 else done.stderr.strip() or f"exit code {done.returncode}"


def _can_install() -> bool:
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def _run(program: str, mode: str, settings: Settings, *numbers: int) -> float:
    """Run the program; returns the seconds that it took."""
    command = [program, mode, settings.amqp_url, QUEUE, *map(str, numbers)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MeasurementError(f"the C client failed to {mode}: {done.stderr.strip()}")
    return float(done.stdout)
