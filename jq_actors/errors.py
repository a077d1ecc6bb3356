"""Every error that jq_actors raises, from one root.

    JobQueueError
    ├── ConfigError                    the configuration is wrong: lists all problems with their key paths
    ├── ActorOptionError               an @actor or send option is unknown or out of range
    ├── ArgumentError                  an argument does not fit the signature, or cannot become JSON
    ├── CommandTooLargeError           an encoded command exceeds the size limit
    ├── ResultTooLargeError            an actor's result exceeds the size limit
    ├── DecodeError                    a delivery is not a command
    ├── RequiresPersistenceError       the call needs a row, and there is no `persistence`
    ├── RuntimeStateError              the call cannot work from this thread, or at this time
    ├── SendError                      sending failed; the subclass says what is known of the jobs
    │   ├── NotStoredError             stored nowhere: send again
    │   │   ├── GroupFullError         the group already has as many waiting jobs as it may have
    │   │   └── PositionTakenError     the position in the group is used, past, or makes no sense there
    │   ├── StoredNotSentError         stored as a row; the relay will send it
    │   └── SendUnknownError           no answer in time: the job may run
    ├── TransportError                 the broker cannot be reached, or refuses
    ├── StoreError
    │   ├── StoreUnavailableError      the database is unreachable; the write is tried again
    │   │   └── StoreUnknownError      the connection broke during the commit: the write may have happened
    │   ├── StoreItemError             the database takes other writes, but not this one
    │   └── NotMigratedError           the tables are missing, or of another version
    └── ResultError                    why there is no result
        ├── JobNotFoundError · JobFailedError · JobCancelledError · JobSupersededError
        └── JobUnhandledError · ResultTimeoutError

What an actor raises to say how its run ended is control flow, not an error, and a user's ``except Exception`` must not
catch it:

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
    """One problem in the configuration: where it is, and what is allowed there."""

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
    """An option of an actor, or of a single send, is unknown or has an impossible value."""


class ArgumentError(JobQueueError, TypeError):
    """Arguments do not bind to the actor's signature, or one cannot be converted to JSON."""


class CommandTooLargeError(JobQueueError, ValueError):
    """The encoded command is larger than ``broker.max_command_size``."""

    def __init__(self, actor_name: str, size: int, limit: int) -> None:
        self.actor_name, self.size, self.limit = actor_name, size, limit
        super().__init__(
            f"A command for {actor_name!r} has {size} bytes; the limit is {limit} (broker.max_command_size). "
            "Store the data elsewhere and send a reference."
        )


class ResultTooLargeError(JobQueueError, ValueError):
    """An actor's result, as JSON, is larger than ``persistence.max_result_size``."""

    def __init__(self, actor_name: str, size: int, limit: int) -> None:
        self.actor_name, self.size, self.limit = actor_name, size, limit
        super().__init__(
            f"The result of {actor_name!r} has {size} bytes; the limit is {limit} (persistence.max_result_size). "
            "The work itself was done. Store the data elsewhere and return a reference."
        )


class DecodeError(JobQueueError, ValueError):
    """The body of a delivery is not a command."""


class RequiresPersistenceError(JobQueueError):
    """The call needs the job's row, but the `persistence` middleware is not configured."""

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
    """These jobs are stored nowhere and will not run; it is safe to send them again."""


class GroupFullError(NotStoredError):
    """The group already has as many waiting jobs as its rule (``max_size``) allows."""


class PositionTakenError(NotStoredError):
    """The position is used already or past, or only one of the group and the job is numbered."""


class StoredNotSentError(SendError):
    """These jobs are stored, but the broker has not taken them yet; the relay will send them."""


class SendUnknownError(SendError):
    """The broker did not answer in time: these jobs may run, and sending them again may run them twice."""


class TransportError(JobQueueError):
    """The broker cannot be reached, or refuses the request."""


class StoreError(JobQueueError):
    """The store refused the request, or failed."""


class StoreUnavailableError(StoreError):
    """The database cannot be reached now. Pending writes are kept, and made when it is back."""


class StoreUnknownError(StoreUnavailableError):
    """The connection to the database broke during a commit: the write may or may not have happened.

    Any other `StoreUnavailableError` means that it did not happen.
    """


class StoreItemError(StoreError):
    """The database refuses this item time and again, although it takes others of the same kind."""


class NotMigratedError(StoreError):
    """The tables are missing, or of another version; ``jq-actors db upgrade`` creates or migrates them."""


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
    """No worker can run the job now; it is kept until one can."""

    def __init__(self, job_id: str, reason: str | None) -> None:
        super().__init__(job_id, f"Job {job_id} is unhandled: {reason or 'no worker knows its actor'}")


class ResultTimeoutError(ResultError, TimeoutError):
    """The job did not end within the given time. It is not stopped."""

    def __init__(self, job_id: str, seconds: float, state: str) -> None:
        super().__init__(job_id, f"Job {job_id} is still {state} after {seconds:g} s.")


class JobControl(BaseException):
    """Base of what an actor raises to say how its run ended. Not an `Exception`: ``except Exception`` lets it pass."""


class Retry(JobControl):
    """Raised by an actor: run this job again after a delay. The attempt counts.

    The job fails if the retry policy allows no further attempt, or if the delay is longer than a hundred years.

    Parameters:
      message: the reason, as it is shown with the attempt.
      delay: an int in milliseconds, or a timedelta; ``None``: the retry policy's backoff.
    """

    def __init__(self, message: str = "", delay: int | timedelta | None = None) -> None:
        self.delay = None if delay is None else to_timedelta(delay)
        super().__init__(message or "The actor asked for a retry.")


class Snooze(JobControl):
    """Raised by an actor: run this job again after a delay. The attempt does not count.

    Parameters:
      delay: an int in milliseconds, or a timedelta. Above a hundred years, the job fails.
    """

    def __init__(self, delay: int | timedelta) -> None:
        self.delay = to_timedelta(delay)
        super().__init__(f"The actor snoozed for {self.delay}.")


class Fail(JobControl):
    """Raised by an actor: the job fails with ``reason``, whatever the retry policy says."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


def to_timedelta(value: int | timedelta) -> timedelta:
    """``value`` as a timedelta; an int is milliseconds, as everywhere in Dramatiq.

    A number beyond the range of a timedelta becomes the longest (or, if negative, the shortest) one.
    """
    if isinstance(value, timedelta):
        return value
    try:
        return timedelta(milliseconds=value)
    except OverflowError:
        return timedelta.max if value > 0 else timedelta.min
