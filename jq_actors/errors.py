"""Every error that jq_actors raises, from one root.

    JobQueueError
    ├── ConfigError                    the configuration: all problems at once, with key paths
    ├── ActorOptionError               an @actor or send option that is unknown or out of range
    ├── ArgumentError                  an argument that does not fit the signature, or cannot become JSON
    ├── CommandTooLargeError           an encoded command above the size cap
    ├── ResultTooLargeError            what an actor returned is above the size cap
    ├── DecodeError                    a delivery that is no command
    ├── RequiresPersistenceError       asked for something that needs a row, without `persistence`
    ├── RuntimeStateError              called from a thread, or at a time, where it cannot work
    ├── SendError                      what is known of jobs whose sending failed
    │   ├── NotStoredError             surely nowhere: send again
    │   │   ├── GroupFullError         its group has as many waiting jobs as it may have
    │   │   └── PositionTakenError     its position in the group is used, past, or makes no sense there
    │   ├── StoredNotSentError         stored as a row; the relay will send it
    │   └── SendUnknownError           no answer in time: it may run
    ├── TransportError                 the broker cannot be reached, or refuses
    ├── StoreError
    │   ├── StoreUnavailableError      the database is away; it is tried again
    │   │   └── StoreUnknownError      it went away while it committed: it may be written
    │   ├── StoreItemError             others are written, and this cannot be
    │   └── NotMigratedError           the tables are missing or of another version
    └── ResultError                    why there is no result
        ├── JobNotFoundError · JobFailedError · JobCancelledError · JobSupersededError
        └── JobUnhandledError · ResultTimeoutError

Control flow that an actor raises on purpose is no error, and a user's ``except Exception`` must not eat it:

    JobControl (BaseException)
    └── Retry(delay) · Snooze(delay) · Fail(reason)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta


class JobQueueError(Exception):
    """Root of all errors of jq_actors."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in the configuration: where, and what is allowed there."""

    path: str
    """Key path, such as ``middleware[2].group_fifo.quantum``; empty for the file as a whole."""
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class ConfigError(JobQueueError):
    """The configuration has problems; ``problems`` holds all of them."""

    def __init__(self, problems: Sequence[Problem], source: str = "configuration") -> None:
        self.problems = tuple(problems)
        self.source = source
        listed = "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(f"{source} has {len(self.problems)} problem(s):\n{listed}")


class ActorOptionError(JobQueueError, ValueError):
    """An option of an actor or of a sending is unknown or has an impossible value."""


class ArgumentError(JobQueueError, TypeError):
    """Arguments do not bind to the actor's signature, or one cannot be converted to JSON."""


class CommandTooLargeError(JobQueueError, ValueError):
    """The encoded command is larger than the cap."""

    def __init__(self, actor_name: str, size: int, limit: int) -> None:
        self.actor_name, self.size, self.limit = actor_name, size, limit
        super().__init__(
            f"A command for {actor_name!r} has {size} bytes; the limit is {limit} (broker.max_command_size). "
            "Store the data elsewhere and send a reference."
        )


class ResultTooLargeError(JobQueueError, ValueError):
    """What an actor returned is larger, as JSON, than the cap."""

    def __init__(self, actor_name: str, size: int, limit: int) -> None:
        self.actor_name, self.size, self.limit = actor_name, size, limit
        super().__init__(
            f"The result of {actor_name!r} has {size} bytes; the limit is {limit} (persistence.max_result_size). "
            "Its work is done: store the data elsewhere and return a reference."
        )


class DecodeError(JobQueueError, ValueError):
    """The body of a delivery is not a command."""


class RequiresPersistenceError(JobQueueError):
    """The call needs a row, and the `persistence` middleware is not configured."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} needs the `persistence` middleware; add it to `middleware:`.")


class RuntimeStateError(JobQueueError, RuntimeError):
    """The call cannot work from this thread or at this time."""


class SendError(JobQueueError):
    """Sending failed for ``job_ids``; the subclass says what is known of them."""

    def __init__(self, message: str, job_ids: Sequence[str]) -> None:
        self.job_ids = tuple(job_ids)
        super().__init__(message)


class NotStoredError(SendError):
    """These jobs were surely not stored anywhere: they will not run; send them again."""


class GroupFullError(NotStoredError):
    """The group of these jobs has as many waiting jobs as its rule (``max_size``) allows."""


class PositionTakenError(NotStoredError):
    """A position in a group is used already, or past; or the group is numbered and the job is not, or the reverse."""


class StoredNotSentError(SendError):
    """These jobs are stored; the broker did not take them yet, and the relay will send them."""


class SendUnknownError(SendError):
    """The broker did not answer in time: these jobs may run. Sending them again may run them twice."""


class TransportError(JobQueueError):
    """The broker cannot be reached, or refuses what was asked."""


class StoreError(JobQueueError):
    """The store refuses or fails."""


class StoreUnavailableError(StoreError):
    """The database cannot be reached now. What has to be written is kept and written when it is back."""


class StoreUnknownError(StoreUnavailableError):
    """The database went away while it committed: what had to be written may be written. Any other
    `StoreUnavailableError` says that it surely is not."""


class StoreItemError(StoreError):
    """The database takes others like this one, and does not take this one, time and again."""


class NotMigratedError(StoreError):
    """The tables are missing or of another version; ``jq-actors db upgrade`` makes them."""


class ResultError(JobQueueError):
    """There is no result for ``job_id``."""

    def __init__(self, job_id: str, message: str) -> None:
        self.job_id = job_id
        super().__init__(message)


class JobNotFoundError(ResultError):
    """No job has this id."""

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id, f"There is no job {job_id}.")


class JobFailedError(ResultError):
    """The job failed for good."""

    def __init__(self, job_id: str, error: str | None, traceback: str | None = None) -> None:
        self.error, self.traceback = error, traceback
        super().__init__(job_id, f"Job {job_id} failed: {error or 'no reason was stored'}")


class JobCancelledError(ResultError):
    """The job was cancelled."""

    def __init__(self, job_id: str, reason: str | None) -> None:
        super().__init__(job_id, f"Job {job_id} was cancelled: {reason or 'no reason was given'}")


class JobSupersededError(ResultError):
    """The job was replaced by another one."""

    def __init__(self, job_id: str, reason: str | None) -> None:
        super().__init__(job_id, f"Job {job_id} was superseded: {reason or 'by a newer job'}")


class JobUnhandledError(ResultError):
    """No worker can run the job now; it is kept."""

    def __init__(self, job_id: str, reason: str | None) -> None:
        super().__init__(job_id, f"Job {job_id} is unhandled: {reason or 'no worker knows its actor'}")


class ResultTimeoutError(ResultError, TimeoutError):
    """The job did not end in the given time; it goes on."""

    def __init__(self, job_id: str, seconds: float, state: str) -> None:
        super().__init__(job_id, f"Job {job_id} is still {state} after {seconds:g} s.")


class JobControl(BaseException):
    """What an actor raises to say how its run ended. Not an Exception: ``except Exception`` lets it pass."""


class Retry(JobControl):
    """Run this job again, after ``delay`` (milliseconds or a timedelta; ``None``: the retry policy's backoff).

    It counts as an attempt and ends as failed when the retry policy allows no more, or when the delay is longer than a
    hundred years.
    """

    def __init__(self, message: str = "", delay: int | timedelta | None = None) -> None:
        self.delay = None if delay is None else to_timedelta(delay)
        super().__init__(message or "The actor asked for a retry.")


class Snooze(JobControl):
    """Run this job again after ``delay`` (milliseconds or a timedelta); the attempt does not count.

    A delay of more than a hundred years ends it as failed.
    """

    def __init__(self, delay: int | timedelta) -> None:
        self.delay = to_timedelta(delay)
        super().__init__(f"The actor snoozed for {self.delay}.")


class Fail(JobControl):
    """End this job as failed with ``reason``, whatever the retry policy says."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


def to_timedelta(value: int | timedelta) -> timedelta:
    """``value`` as a timedelta: an int is milliseconds, as everywhere in Dramatiq. What is too long is the longest."""
    if isinstance(value, timedelta):
        return value
    try:
        return timedelta(milliseconds=value)
    except OverflowError:
        return timedelta.max if value > 0 else timedelta.min
