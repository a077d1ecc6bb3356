"""The retry policy: how often, after how long, and what is final."""

from __future__ import annotations

import itertools
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import dramatiq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jq_actors.actors.actor import JobActor, actor
from jq_actors.chain.middleware import Process
from jq_actors.config.durations import LONGEST_DELAY
from jq_actors.errors import Fail
from jq_actors.errors import Retry as RetryError
from jq_actors.model.job import JobId
from jq_actors.model.outcome import Cancelled, Failed, Interrupted, Outcome, Retrying, Snoozed, Succeeded, outcome_of
from jq_actors.model.running_job import RunningJob
from jq_actors.process.broker import JobBroker
from jq_middleware.retry import Retry
from tests.support.clock import FakeClock

SECOND = timedelta(seconds=1)
ERROR = ValueError("boom")


broker = JobBroker({"broker": {"url": "embedded://"}, "middleware": ["retry"]})
broker.resolve()  # it reads files: not on a loop
names = (f"actor_{number}" for number in itertools.count())


def make_actor(**options: Any) -> JobActor[[], None]:
    @actor(broker=broker, actor_name=next(names), **options)
    def work() -> None: ...

    return work


PLAIN = make_actor()


async def outcome_with(
    policy: Retry,
    end: Outcome | BaseException = ERROR,
    *,
    attempt: int = 1,
    of: JobActor[[], None] = PLAIN,
    **sent_with: Any,
) -> Outcome:
    command = of.message_with_options(**sent_with)

    async def innermost(job: RunningJob) -> Outcome:
        return outcome_of(end) if isinstance(end, BaseException) else end

    return await policy.run(RunningJob(JobId(command.message_id), attempt, command, of), innermost)


async def delay_with(policy: Retry, end: Outcome | BaseException = ERROR, **how: Any) -> timedelta:
    outcome = await outcome_with(policy, end, **how)
    assert isinstance(outcome, Retrying)
    return outcome.delay


class Chance(FakeClock):
    """Always draws the same."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self._share = share

    def random(self) -> float:
        return self._share


async def with_chance(policy: Retry, share: float) -> Retry:
    await policy.on_start(cast("Process", SimpleNamespace(clock=Chance(share))))
    return policy


# -- how often --------------------------------------------------------------------------------------------


async def test_a_failure_is_retried_up_to_max_retries_times() -> None:
    outcomes = [await outcome_with(Retry(max_retries=2), attempt=attempt) for attempt in (1, 2, 3)]

    assert [type(outcome) for outcome in outcomes] == [Retrying, Retrying, Failed]


async def test_the_failure_is_kept() -> None:
    retrying = await outcome_with(Retry())

    assert isinstance(retrying, Retrying)
    assert retrying.failure.exception is ERROR
    assert retrying.failure.error == "ValueError: boom"


@pytest.mark.parametrize("zero", ["policy", "actor", "sending"])
async def test_zero_means_never(zero: str) -> None:
    policy = Retry(max_retries=0 if zero == "policy" else 5)
    of = make_actor(max_retries=0) if zero == "actor" else PLAIN

    sent_with: dict[str, Any] = {"max_retries": 0} if zero == "sending" else {}
    outcome = await outcome_with(policy, of=of, **sent_with)

    assert isinstance(outcome, Failed)


async def test_a_sending_overrides_its_actor_and_the_actor_overrides_the_policy() -> None:
    policy, of = Retry(max_retries=0), make_actor(max_retries=2)

    assert isinstance(await outcome_with(policy, attempt=2, of=of), Retrying)
    assert isinstance(await outcome_with(policy, attempt=3, of=of), Failed)
    assert isinstance(await outcome_with(policy, attempt=3, of=of, max_retries=3), Retrying)


async def test_no_pause_is_longer_than_a_job_can_wait() -> None:
    absurd = timedelta(days=10**8)
    delay = await delay_with(Retry(min_backoff=absurd, max_backoff=absurd))

    assert delay == LONGEST_DELAY


async def test_none_retries_without_end() -> None:
    delay = await delay_with(Retry(), attempt=100_000, of=make_actor(max_retries=None))

    assert timedelta() < delay <= timedelta(hours=1)


# -- what is final ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("throws", [ValueError, (KeyError, ValueError), Exception])
async def test_an_exception_that_the_actor_throws_is_final(throws: Any) -> None:
    assert isinstance(await outcome_with(Retry(), of=make_actor(throws=throws)), Failed)


async def test_another_exception_than_it_throws_is_retried() -> None:
    assert isinstance(await outcome_with(Retry(), of=make_actor(throws=KeyError)), Retrying)


async def test_fail_is_final() -> None:
    outcome = await outcome_with(Retry(), Fail("no such account"))

    assert isinstance(outcome, Failed)
    assert outcome.failure.error == "no such account"


@pytest.mark.parametrize(
    "outcome",
    [Succeeded(1), Cancelled("by hand"), Interrupted(), Snoozed(SECOND)],
    ids=lambda o: type(o).__name__,
)
async def test_an_outcome_that_is_no_failure_stays_what_it_is(outcome: Outcome) -> None:
    assert await outcome_with(Retry(), outcome) is outcome


async def test_retry_when_decides_instead_of_max_retries() -> None:
    asked: list[tuple[int, BaseException]] = []

    def at_most_twice(retries: int, exception: BaseException) -> bool:
        asked.append((retries, exception))
        return retries < 2

    of = make_actor(retry_when=at_most_twice, max_retries=0)
    outcomes = [await outcome_with(Retry(), attempt=attempt, of=of) for attempt in (1, 2, 3)]

    assert [type(outcome) for outcome in outcomes] == [Retrying, Retrying, Failed]
    assert asked == [(0, ERROR), (1, ERROR), (2, ERROR)]


# -- after how long ---------------------------------------------------------------------------------------

times = st.integers(min_value=0, max_value=30 * 86_400_000)


@given(st.integers(1, 5000), times, times, st.floats(0, 1, exclude_max=True), st.sampled_from(["full", "none"]))
async def test_the_pause_is_within_its_bounds(attempt: int, first: int, second: int, share: float, jitter: str) -> None:
    low, high = sorted((first, second))
    policy = await with_chance(Retry(max_retries=10_000, min_backoff=low, max_backoff=high, jitter=jitter), share)

    delay = await delay_with(policy, attempt=attempt)

    assert timedelta(milliseconds=low) <= delay <= timedelta(milliseconds=high)


async def test_without_jitter_the_pause_doubles_up_to_its_bound() -> None:
    policy = Retry(max_retries=9, min_backoff="1s", max_backoff="10s", jitter="none")

    delays = [await delay_with(policy, attempt=attempt) for attempt in range(1, 7)]

    assert delays == [timedelta(seconds=seconds) for seconds in (1, 2, 4, 8, 10, 10)]


async def test_jitter_draws_between_the_shortest_pause_and_a_ceiling_that_doubles() -> None:
    ceilings = [
        await delay_with(await with_chance(Retry(max_backoff="10s"), 1.0), attempt=attempt, max_retries=9)
        for attempt in range(1, 6)
    ]
    halfway = await delay_with(await with_chance(Retry(), 0.5), attempt=2)
    shortest = await delay_with(await with_chance(Retry(), 0.0), attempt=3)

    assert ceilings == [timedelta(seconds=seconds) for seconds in (2, 4, 8, 10, 10)]
    assert (halfway, shortest) == (timedelta(seconds=2.5), SECOND)


async def test_no_backoff_at_all_is_none() -> None:
    assert await delay_with(Retry(min_backoff=0, max_backoff="1h"), attempt=3) == timedelta()


@pytest.mark.parametrize("given_as", [5000, timedelta(seconds=5), "5s"])
async def test_an_actor_sets_its_own_backoff(given_as: Any) -> None:
    of = make_actor(min_backoff=given_as, max_backoff=given_as)

    assert await delay_with(Retry(), attempt=3, of=of) == timedelta(seconds=5)


async def test_an_actor_whose_shortest_pause_is_over_the_policys_longest_waits_that_long() -> None:
    of = make_actor(min_backoff="2h")

    assert await delay_with(Retry(max_backoff="1h"), of=of) == timedelta(hours=2)


@pytest.mark.parametrize(
    "asks", [RetryError(delay=90), RetryError(delay=timedelta(milliseconds=90)), dramatiq.Retry(delay=90)]
)
async def test_the_actor_may_ask_for_a_pause(asks: BaseException) -> None:
    assert await delay_with(Retry(min_backoff="1s"), asks) == timedelta(milliseconds=90)


async def test_a_pause_that_would_be_over_is_none() -> None:
    assert await delay_with(Retry(), RetryError(delay=-90)) == timedelta()


async def test_a_retry_that_the_actor_asks_for_counts_too() -> None:
    assert isinstance(await outcome_with(Retry(max_retries=1), RetryError(delay=1), attempt=2), Failed)


# -- its own options --------------------------------------------------------------------------------------


def test_it_declares_the_options_of_actors() -> None:
    assert Retry().actor_options == {"max_retries", "min_backoff", "max_backoff", "throws", "retry_when"}


def test_durations_are_text_milliseconds_or_timedelta() -> None:
    policy = Retry(min_backoff=250, max_backoff="2m")

    assert (policy.min_backoff, policy.max_backoff) == (timedelta(milliseconds=250), timedelta(minutes=2))
    assert Retry(max_backoff=timedelta(days=1)).max_backoff == timedelta(days=1)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"max_retries": -1}, "max_retries must be a whole number of at least 0, not -1"),
        ({"max_retries": "3"}, "max_retries must be a whole number of at least 0, not '3'"),
        ({"max_retries": True}, "max_retries must be a whole number of at least 0, not True"),
        ({"min_backoff": "soon"}, "min_backoff: 'soon' is not a duration"),
        ({"max_backoff": 1.5}, "max_backoff must be a time such as 30s, not 1.5"),
        ({"min_backoff": "2h"}, "min_backoff must not be longer than max_backoff"),
        ({"jitter": "some"}, "jitter must be one of full, none, not 'some'"),
    ],
)
def test_an_impossible_option_is_named_with_what_is_allowed(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Retry(**options)
