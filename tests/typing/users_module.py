"""A user's module, for the type checkers: never imported, never run.

mypy and pyright read it strictly, in the repository (`make types`) and in a foreign folder against the built
wheel (`tests/packaging`). Both report an ignore comment that is not needed: each of those below asserts, too.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from datetime import datetime, timedelta
from typing import Any, assert_type

import dramatiq

from jq_actors import Job, JobActor, JobCommand, JobId, JobMiddleware, JobState, RunningJob, actor, current_job, jobs
from jq_actors.chain.middleware import RunNext
from jq_actors.model.job import Place
from jq_actors.model.outcome import Outcome


@actor
async def greet(name: str, times: int = 1) -> str:
    return name * times


@actor(queue_name="mail", max_retries=5, time_limit=timedelta(seconds=30))
def count(words: Sequence[str]) -> int:
    me = current_job()
    me.log("counting %d words", len(words))
    assert_type(me.id, JobId)
    assert_type(me.attempt, int)
    return len(words)


@actor(group="account-{account_id}")
def bill(account_id: int, cents: int) -> None: ...


def by_account(account_id: int, cents: int) -> str | None:
    return f"account-{account_id}" if cents else None


@actor(group=by_account, max_retries=5)
async def remind(account_id: int, cents: int) -> None: ...


def use_from_sync_code() -> None:
    assert_type(greet.send("Ada"), JobCommand[str])
    assert_type(count.send(["a", "b"]).job_id, JobId)
    assert_type(count(["a", "b"]), int)
    assert_type([greet("Ada", times=2)], list[Coroutine[Any, Any, str]])
    assert_type(greet.send_many([(("Ada",), {"times": 2})], tags=["import"]), list[JobCommand[str]])
    sent = count.send_with_options(args=(["a"],), delay=timedelta(minutes=5), priority=3, tags=["import"])
    assert_type(sent, JobCommand[int])
    assert_type(bill.send_with_options(args=(7, 100), group="vip", position=3), JobCommand[None])
    assert_type(remind.send_with_options(args=(7, 100), group=None), JobCommand[None])
    remind.send(7, "100")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    queued: dramatiq.Message[int] = count.message(["a"])
    assert_type(queued.options, dict[str, Any])

    greet.send(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    greet.send("Ada", time=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    count.send()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def use_from_async_code() -> None:
    assert_type(await greet("Ada"), str)
    assert_type(await greet.send_async("Ada"), JobCommand[str])
    assert_type(await jobs.get_async(JobId("…")), Job | None)


def look_at_jobs(command: JobCommand[str]) -> datetime | None:
    job = jobs.get(command.job_id)
    if job is None:
        return None
    assert_type(job.state, JobState)
    assert_type(job.group, str | None)
    assert_type([found.id for found in jobs.find(state="failed", actor="greet", limit=10).jobs], list[JobId])
    assert_type(jobs.retry(state="failed", actor="greet"), list[JobId])
    assert_type(jobs.move(command.job_id, front=True).place, Place | None)
    assert_type([group.reason for group in jobs.groups(state="blocked").groups], list[str | None])
    return job.started_at


class Tracing(JobMiddleware):
    """A middleware of a third party."""

    async def run(self, job: RunningJob, call_next: RunNext) -> Outcome:
        return await call_next(job)


def takes_any_actor(some: JobActor[..., Any]) -> str:
    return some.actor_name


takes_any_actor(greet)
takes_any_actor(count)
