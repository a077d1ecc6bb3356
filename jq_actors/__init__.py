"""The job queue for Python teams on RabbitMQ: Dramatiq actors, an asyncio runtime, jobs that are never lost.

    from jq_actors import actor, current_job, jobs

Importing this package installs a `JobBroker` as Dramatiq's global broker, and reads no configuration: that happens
at first need, or in `configure`.
"""

from . import jobs
from .actor import AsyncJobActor, JobActor, actor
from .broker import JobBroker
from .command import JobCommand
from .current import RunningJob, current_job
from .errors import Fail, JobQueueError, Retry, Snooze
from .group import Group, GroupState
from .installed import configure, install
from .job import Job, JobId, JobState, Place
from .middleware import JobMiddleware

__all__ = [
    "AsyncJobActor",
    "Fail",
    "Group",
    "GroupState",
    "Job",
    "JobActor",
    "JobBroker",
    "JobCommand",
    "JobId",
    "JobMiddleware",
    "JobQueueError",
    "JobState",
    "Place",
    "Retry",
    "RunningJob",
    "Snooze",
    "actor",
    "configure",
    "current_job",
    "jobs",
]

install()
