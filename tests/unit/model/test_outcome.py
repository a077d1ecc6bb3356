"""The one place where an exception becomes an outcome."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import dramatiq
import dramatiq.errors
import dramatiq.middleware
import pytest

from jq_actors.errors import Fail, Retry, Snooze
from jq_actors.model.outcome import MAX_TRACEBACK, Cancelled, Failed, Outcome, Snoozed, failure_of, outcome_of


def _raised(exception: BaseException) -> BaseException:
    try:
        raise exception
    except BaseException as error:  # noqa: BLE001 - it is what the test wants to look at
        return error


def _failed(outcome: Outcome) -> Failed:
    assert isinstance(outcome, Failed)
    return outcome


def test_a_plain_error_is_retryable_with_the_delay_of_the_policy() -> None:
    error = _raised(ValueError("no such account"))
    failed = _failed(outcome_of(error))
    assert (failed.retryable, failed.delay) == (True, None)
    assert failed.failure.exception is error
    assert failed.failure.error == "ValueError: no such account"
    assert "_raised" in failed.failure.traceback


@pytest.mark.parametrize("delay", [1500, timedelta(seconds=1.5)])
def test_an_actor_may_ask_for_a_delay(delay: int | timedelta) -> None:
    failed = _failed(outcome_of(_raised(Retry("later", delay=delay))))
    assert (failed.retryable, failed.delay) == (True, timedelta(seconds=1.5))
    assert failed.failure.error.endswith("Retry: later")


def test_a_retry_without_a_delay_leaves_it_to_the_policy() -> None:
    assert _failed(outcome_of(Retry())).delay is None
    assert _failed(outcome_of(dramatiq.errors.Retry("later"))).delay is None


def test_dramatiqs_own_retry_means_the_same() -> None:
    failed = _failed(outcome_of(_raised(dramatiq.errors.Retry("later", delay=1500))))
    assert (failed.retryable, failed.delay) == (True, timedelta(seconds=1.5))


def test_an_actor_may_fail_for_good_with_a_reason() -> None:
    failed = _failed(outcome_of(_raised(Fail("the account is closed"))))
    assert not failed.retryable
    assert failed.failure.error == "the account is closed"


@pytest.mark.parametrize("delay", [250, timedelta(milliseconds=250)])
def test_a_snooze_is_no_failure(delay: int | timedelta) -> None:
    assert outcome_of(_raised(Snooze(delay))) == Snoozed(timedelta(milliseconds=250))


@pytest.mark.parametrize(
    "absurd",
    [
        Snooze(10**15),
        Snooze(10**30),
        Snooze(timedelta.max),
        Retry("later", delay=10**15),
        dramatiq.errors.Retry("later", delay=10**30),
    ],
)
def test_an_absurd_pause_fails_the_job_with_a_sentence(absurd: BaseException) -> None:
    failed = _failed(outcome_of(_raised(absurd)))
    assert not failed.retryable
    assert failed.failure.error.startswith("The actor asked to run again after ")
    assert failed.failure.error.endswith(" days; at most 36500 are possible.")


def test_a_pause_that_is_no_time_fails_the_job_with_a_sentence() -> None:
    strange: Any = "soon"
    failed = _failed(outcome_of(_raised(dramatiq.errors.Retry("later", delay=strange))))
    assert not failed.retryable
    assert failed.failure.error.startswith("The actor asked to run again after 'soon', which is not a time")


@pytest.mark.parametrize("past", [-1, timedelta.min, -(10**30)])
def test_a_snooze_until_the_past_is_one_until_now(past: int | timedelta) -> None:
    assert outcome_of(_raised(Snooze(past))) == Snoozed(timedelta())


@pytest.mark.parametrize("control", [Retry(), Snooze(1), Fail("x")])
def test_what_an_actor_raises_on_purpose_passes_its_own_except_exception(control: BaseException) -> None:
    assert not isinstance(control, Exception)


def test_a_message_that_a_dramatiq_middleware_skips_is_cancelled() -> None:
    skipped = outcome_of(_raised(dramatiq.middleware.SkipMessage("too old")))
    assert skipped == Cancelled("skipped by a middleware: too old")


@pytest.mark.parametrize("stray", [KeyboardInterrupt(), SystemExit(3), asyncio.CancelledError()])
def test_a_stray_base_exception_is_a_failure_like_others(stray: BaseException) -> None:
    assert _failed(outcome_of(stray)).retryable


def test_the_cause_is_in_the_traceback_and_the_class_with_its_first_line_in_the_error() -> None:
    try:
        try:
            raise KeyError("inner")
        except KeyError as cause:
            raise RuntimeError("first line\nlast line") from cause
    except RuntimeError as error:
        error.add_note("a note")
        failure = failure_of(error)
    assert "KeyError: 'inner'" in failure.traceback
    assert failure.error == "RuntimeError: first line"


def test_of_a_syntax_error_the_line_is_not_the_code() -> None:
    with pytest.raises(SyntaxError) as raised:
        compile("1 +", "somewhere", "exec")
    assert failure_of(raised.value).error.startswith("SyntaxError: ")


def test_a_long_traceback_keeps_its_end() -> None:
    def deep(levels: int, pad: str) -> None:
        if levels == 0:
            raise ValueError(pad)
        deep(levels - 1, pad)

    with pytest.raises(ValueError, match="x") as raised:
        deep(50, "x" * 2 * MAX_TRACEBACK)
    failure = failure_of(raised.value)
    assert len(failure.traceback) == MAX_TRACEBACK
    assert failure.traceback.endswith("xxx\n")


def test_an_exception_without_a_message_has_a_line() -> None:
    assert failure_of(ValueError()).error == "ValueError"


def test_an_exception_that_cannot_be_told_is_a_failure_still() -> None:
    assert "MuteError" in failure_of(MuteError()).error


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("cannot tell")
