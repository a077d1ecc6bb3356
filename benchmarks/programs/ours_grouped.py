"""jq_actors with the same jobs, each in a group."""

from __future__ import annotations

from jq_actors import actor

from .group_names import group_of
from .jobs import JOBS
from .our_producer import OurProducer

ACTORS = {job.__name__: actor(group=group_of)(job) for job in JOBS}

PRODUCER = OurProducer(ACTORS)
