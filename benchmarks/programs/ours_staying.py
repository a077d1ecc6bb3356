"""jq_actors with a job that does not end, so that its lane is served until the worker ends; the lanes are recorded."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from jq_actors import actor
from jq_actors.process.installed import installed_broker

from .group_names import group_of
from .lane_notes import LaneNotes
from .our_producer import OurProducer


@actor(group=group_of)
async def stay(number: int) -> None:
    """Stay until the worker ends."""
    await asyncio.Event().wait()


PRODUCER = OurProducer({"stay": stay})

LaneNotes(Path(os.environ["JQ_BENCH_FOLDER"]), installed_broker().events)
