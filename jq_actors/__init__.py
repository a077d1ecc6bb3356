"""The job queue for Python teams on RabbitMQ: Dramatiq actors, an asyncio runtime, jobs that are never lost.

    from jq_actors import actor, current_job, jobs

Importing this package installs a `JobBroker` as Dramatiq's global broker. It does not read the configuration: that
happens at first use, or in `configure`.
"""

from . import jobs
from .actors.actor import AsyncJobActor, JobActor, actor
from .chain.middleware import JobMiddleware
from .errors import Fail, JobQueueError, Retry, Snooze
from .model.command import JobCommand
from .model.group import Group, GroupState
from .model.job import Job, JobId, JobState, Place
from .model.running_job import RunningJob, current_job
from .process.broker import JobBroker
from .process.installed import configure, install

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
