"""How an attempt ended, as a value; and the one place where an exception becomes that value.

Policy (retry, settle, acknowledge) is a function of an outcome. Every ``match`` over it ends in ``assert_never``.
"""

from __future__ import annotations

import json
import traceback as tracebacks
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import dramatiq
import dramatiq.errors

from jq_actors.config.durations import LONGEST_DELAY
from jq_actors.errors import Fail, Retry, Snooze, to_timedelta

MAX_TRACEBACK = 16_384
"""Characters kept of a traceback: its end, where the cause is."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception in a form that can be stored and compared with rules."""

    exception: BaseException | None
    """The exception itself, in the worker that saw it."""
    error: str
    """One line: the class and its message."""
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The actor returned ``value``, a JSON value."""

    value: Any = None
    _encoded: str | None = field(default=None, init=False, compare=False, repr=False)

    def encoded(self) -> str | None:
        """``value`` as JSON text in ASCII, made once; ``None``: there is none.

        Raises:
          TypeError, ValueError, RecursionError: it is not a JSON value.
        """
        if self._encoded is None and self.value is not None:
            object.__setattr__(self, "_encoded", json.dumps(self.value, separators=(",", ":")))
        return self._encoded


@dataclass(frozen=True, slots=True)
class Failed:
    """The actor raised. ``retryable`` is false when it asked to fail for good."""

    failure: Failure
    retryable: bool = True
    delay: timedelta | None = None
    """The delay that the actor asked for with ``Retry(delay)``; ``None``: the policy's."""


@dataclass(frozen=True, slots=True)
class Retrying:
    """The retry policy lets the job run again after ``delay``."""

    failure: Failure
    delay: timedelta


@dataclass(frozen=True, slots=True)
class Snoozed:
    """The actor asked to run again after ``delay``; the attempt does not count."""

    delay: timedelta


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A cancel took effect."""

    reason: str


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A shutdown stopped the attempt; it does not count, and the job is queued again."""


@dataclass(frozen=True, slots=True)
class Unhandled:
    """This worker cannot run the job: no such actor, or its arguments do not bind. The job is kept."""

    reason: str


Outcome = Succeeded | Failed | Retrying | Snoozed | Cancelled | Interrupted | Unhandled


def outcome_of(exception: BaseException) -> Outcome:
    """The outcome of an attempt that ended with ``exception``."""
    match exception:
        case Snooze() | Retry() | dramatiq.errors.Retry() if problem := _problem_of_delay(exception.delay):
            return Failed(Failure(exception, problem), retryable=False)
        case Snooze():
            return Snoozed(max(exception.delay, timedelta()))
        case Fail():
            return Failed(Failure(exception, exception.reason), retryable=False)
        case Retry():
            return Failed(failure_of(exception), delay=exception.delay)
        case dramatiq.errors.Retry():
            delay = None if exception.delay is None else to_timedelta(exception.delay)
            return Failed(failure_of(exception), delay=delay)
        case dramatiq.middleware.SkipMessage():
            return Cancelled(f"skipped by a middleware: {exception}" if str(exception) else "skipped by a middleware")
        case _:
            return Failed(failure_of(exception))


def _problem_of_delay(delay: Any) -> str | None:
    if delay is None:
        return None
    try:
        wanted = to_timedelta(delay)
    except (TypeError, ValueError) as error:
        return f"The actor asked to run again after {delay!r}, which is not a time: {error}."
    if wanted <= LONGEST_DELAY:
        return None
    return f"The actor asked to run again after {wanted.days} days; at most {LONGEST_DELAY.days} are possible."


def failure_of(exception: BaseException) -> Failure:
    """``exception`` as a :class:`Failure`; the text is cut from the front to what a row should hold."""
    lines = "".join(tracebacks.format_exception_only(exception)).strip().splitlines()
    # The one with the class: the first, for what follows is the rest of its message, and notes; the code comes before
    # it in a SyntaxError alone.
    line = next((line for line in lines if line.startswith("SyntaxError")), lines[0]) if lines else ""
    trace = "".join(tracebacks.format_exception(exception))
    return Failure(exception, line or type(exception).__name__, trace[-MAX_TRACEBACK:])
