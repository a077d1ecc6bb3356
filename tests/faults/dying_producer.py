"""A producer that dies in mid-sending. A program: ``python -m tests.faults.dying_producer``.

``exits COUNT`` ends itself between commit and publish; so does ``dies-in-groups COUNT``, with two jobs in each group.
``hangs COUNT`` connects, waits for the file ``go``, sends into a connection that somebody has frozen meanwhile, and
lives until somebody kills it.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import NoReturn

from jq_actors.process.installed import installed_broker
from tests.faults.actors import counts

GO = Path("go")


def exits(count: int) -> None:
    # In this process only.
    installed_broker().runtime.transport.publish = _die  # type: ignore[assignment, method-assign]
    send(count)


def dies_in_groups(count: int) -> None:
    from tests.faults.group_actors import step  # where no groups are configured it could not be declared

    # In this process only.
    installed_broker().runtime.transport.publish = _die  # type: ignore[assignment, method-assign]
    step.send_many([((group, place), {}) for group in range(count) for place in range(2)])
    time.sleep(30)  # it dies behind this


def hangs(count: int) -> None:
    runtime = installed_broker().runtime
    runtime.io.call(runtime.sender.connect())
    print("connected" if runtime.io.call(runtime.transport.wait_connected(10)) else "not connected", flush=True)
    while not GO.exists():
        time.sleep(0.02)
    send(count)
    while True:
        time.sleep(1)


def send(count: int) -> None:
    counts.send_many([((number,), {}) for number in range(count)])
    print("sent", flush=True)


async def _die(*_: object) -> NoReturn:
    os._exit(9)


if __name__ == "__main__":
    {"exits": exits, "dies-in-groups": dies_in_groups, "hangs": hangs}[sys.argv[1]](int(sys.argv[2]))
