"""A producer that dies in mid-sending. A program: ``python -m tests.faults.dying_producer``.

``exits COUNT`` ends itself between the commit and the publish. ``publishes COUNT`` does so after the publish, when it
should look whether the lanes of its jobs are served; each is the first one of a group. ``hangs COUNT`` connects, waits
for the file ``go``, sends into a connection that somebody has frozen meanwhile, and lives until somebody kills it.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import NoReturn

from jq_actors.installed import installed_broker
from jq_actors.transport.rabbitmq import offering
from tests.faults.actors import counts

GO = Path("go")


def exits(count: int) -> None:
    # In this process only.
    installed_broker().runtime.transport.publish = _die  # type: ignore[assignment, method-assign]
    send(count)


def publishes(count: int) -> None:
    from tests.faults.group_actors import step  # where no groups are configured it could not be declared

    offering.look = _die  # type: ignore[assignment, attr-defined]  # in this process only
    step.send_many([((group, 0), {}) for group in range(count)])


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
    {"exits": exits, "publishes": publishes, "hangs": hangs}[sys.argv[1]](int(sys.argv[2]))
