"""The onion: order, what is left out, and how names become classes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dramatiq
import pytest

from jq_actors.chain.middleware import (
    EnqueueNext,
    JobMiddleware,
    RunNext,
    compose_enqueue,
    compose_run,
    known_names,
    load_class,
)
from jq_actors.model.command import JobCommand
from jq_actors.model.job import JobId
from jq_actors.model.outcome import Failed, Outcome, Succeeded
from jq_actors.model.running_job import RunningJob

COMMAND = JobCommand[Any]("mail", "send_mail", (), {}, {}, "0192f0e0-0000-7000-8000-000000000000", 0)
JOB = RunningJob(id=JobId(COMMAND.message_id), attempt=1, command=COMMAND, actor=None)


class Recording(JobMiddleware):
    def __init__(self, name: str, trail: list[str]) -> None:
        self.name, self.trail = name, trail

    async def enqueue(self, commands: Sequence[JobCommand[Any]], call_next: EnqueueNext) -> None:
        self.trail.append(f"{self.name} in")
        await call_next(commands)
        self.trail.append(f"{self.name} out")

    async def run(self, job: RunningJob, call_next: RunNext) -> Outcome:
        self.trail.append(f"{self.name} in")
        outcome = await call_next(job)
        self.trail.append(f"{self.name} out")
        return outcome


class Idle(JobMiddleware):
    """Overrides neither."""


class Failing(JobMiddleware):
    async def run(self, job: RunningJob, call_next: RunNext) -> Outcome:
        raise ValueError("from the middleware")


async def _succeed(job: RunningJob) -> Outcome:
    return Succeeded(job.id)


async def test_the_first_of_the_list_is_outermost_around_a_run() -> None:
    trail: list[str] = []
    chain = [Recording("first", trail), Recording("second", trail)]
    assert await compose_run(chain, _succeed)(JOB) == Succeeded(JOB.id)
    assert trail == ["first in", "second in", "second out", "first out"]


async def test_the_first_of_the_list_is_outermost_around_a_sending() -> None:
    trail: list[str] = []

    async def send(commands: Sequence[JobCommand[Any]]) -> None:
        trail.append(f"sent {len(commands)}")

    await compose_enqueue([Recording("first", trail), Recording("second", trail)], send)([COMMAND, COMMAND])
    assert trail == ["first in", "second in", "sent 2", "second out", "first out"]


def test_layers_without_a_part_cost_nothing() -> None:
    async def send(commands: Sequence[JobCommand[Any]]) -> None:
        raise AssertionError("not called")

    chain: list[dramatiq.Middleware] = [Idle(), dramatiq.middleware.AgeLimit(), JobMiddleware()]
    assert compose_run(chain, _succeed) is _succeed
    assert compose_enqueue(chain, send) is send


async def test_a_layer_may_answer_without_the_inner_ones() -> None:
    class Refusing(JobMiddleware):
        async def run(self, job: RunningJob, call_next: RunNext) -> Outcome:
            return Succeeded("refused")

    trail: list[str] = []
    assert await compose_run([Refusing(), Recording("inner", trail)], _succeed)(JOB) == Succeeded("refused")
    assert trail == []


async def test_the_exception_of_an_inner_layer_is_an_outcome_for_the_outer_ones() -> None:
    trail: list[str] = []
    outcome = await compose_run([Recording("outer", trail), Failing()], _succeed)(JOB)
    assert isinstance(outcome, Failed)
    assert outcome.failure.error == "ValueError: from the middleware"
    assert trail == ["outer in", "outer out"]


async def test_a_cancellation_passes_through_all_layers() -> None:
    async def hang(job: RunningJob) -> Outcome:
        await asyncio.Event().wait()
        raise AssertionError("never")

    trail: list[str] = []
    task = asyncio.ensure_future(compose_run([Recording("outer", trail)], hang)(JOB))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert trail == ["outer in"]


async def test_one_chain_serves_jobs_that_run_at_the_same_time() -> None:
    trail: list[str] = []
    run = compose_run([Recording("layer", trail)], _succeed)
    assert set(await asyncio.gather(run(JOB), run(JOB))) == {Succeeded(JOB.id)}
    assert len(trail) == 4


def test_a_dotted_path_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_middleware.py").write_text(
        "import dramatiq\nclass Tracing(dramatiq.Middleware): ...\nclass Other: ...\nvalue = 7\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    loaded = load_class("their_middleware:Tracing")
    monkeypatch.delitem(sys.modules, "their_middleware")
    assert loaded.__name__ == "Tracing"
    for name in ("their_middleware:Other", "their_middleware:value"):
        with pytest.raises(ValueError, match=f"'{name}' is not a dramatiq.Middleware class"):
            load_class(name)
    with pytest.raises(ValueError, match=r"cannot import 'their_middleware:Missing': .*no attribute"):
        load_class("their_middleware:Missing")


@pytest.mark.parametrize("name", ["no_such_package:Class", "no_such_package.inner:Class"])
def test_a_module_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"cannot import '{name}': No module named 'no_such_package'"):
        load_class(name)


def test_an_unknown_short_name_lists_the_known_ones() -> None:
    assert {"persistence", "group_fifo", "retry", "time_limit"} <= set(known_names())
    with pytest.raises(ValueError, match=r"unknown middleware 'retries'; known are .*persistence.*retry"):
        load_class("retries")
