"""jq_actors: configured by the YAML file that $JQ_CONFIG names, with or without persistence."""

from __future__ import annotations

from jq_actors import actor

from .jobs import JOBS
from .our_producer import OurProducer

ACTORS = {job.__name__: actor(job) for job in JOBS}

PRODUCER = OurProducer(ACTORS)
