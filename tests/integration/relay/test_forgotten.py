"""What an error of ours, or a worker of an older release, leaves behind is found again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from jq_actors import actor, jobs
from jq_actors.events import JobUnhandled, TaskFailed
from jq_actors.model.outcome import Outcome
from jq_actors.worker.executor import Executor
from tests.support.application import Application, Place, running


def test_a_claim_whose_life_ended_in_an_error_of_ours_is_given_back(
    app_with_rows: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row says `running`, on this living worker: nobody else may touch it."""
    app = app_with_rows
    app.record(TaskFailed)
    monkeypatch.setattr("jq_actors.worker.intake.AFTER_AN_ERROR", timedelta(seconds=0.2))
    run = Executor._run
    broken: list[Any] = []

    async def breaks_once(self: Executor, claimed: Any) -> Outcome:
        if not broken:
            broken.append(claimed)
            raise RuntimeError("an error of ours")
        return await run(self, claimed)

    monkeypatch.setattr(Executor, "_run", breaks_once)

    @actor
    async def add(a: int, b: int) -> int:
        return a + b

    with app.worker():
        command = add.send(1, 2)
        assert jobs.result(command.job_id, timeout=20) == 3

    assert app.of(TaskFailed)
    job = jobs.get(command.job_id)
    assert job is not None
    assert (job.attempt, job.crashes) == (1, 0)


def test_a_job_that_followed_another_in_its_group_is_given_back_whatever_became_of_the_delivery(
    place_with_rows: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No delivery is its own, and the one in hand is not looked at again here."""
    monkeypatch.setattr("jq_actors.worker.intake.AFTER_AN_ERROR", timedelta(hours=1))
    run = Executor._run
    broken: list[Any] = []

    async def breaks_once(self: Executor, claimed: Any) -> Outcome:
        if not claimed.is_own and not broken:
            broken.append(claimed)
            raise RuntimeError("an error of ours")
        return await run(self, claimed)

    monkeypatch.setattr(Executor, "_run", breaks_once)
    ran: list[int] = []
    rows, *others = place_with_rows.configuration["middleware"]
    chain = {"middleware": [rows, {"group_fifo": {}}, *others], "worker": {"lease": "1s"}}
    with running({**place_with_rows.configuration, **chain}) as app:

        @actor(group="g")
        async def note(number: int) -> None:
            ran.append(number)

        commands = note.send_many([((number,), {}) for number in range(4)])
        with app.worker():
            jobs.result(commands[-1].job_id, timeout=20)

    assert broken
    assert ran == [0, 1, 2, 3]


def test_a_job_that_an_old_worker_did_not_know_is_offered_to_a_new_one(
    rabbit_rows: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new worker has joined before the old one refuses the job: joining alone would not find it."""
    monkeypatch.setattr("jq_actors.worker.serving.OFFER_EVERY", 0.5)
    new_release = {**rabbit_rows.configuration, "worker": {"lease": "1s"}}
    with running(new_release) as app:

        @actor
        async def added_in_this_release() -> str:
            return "done"

        command = added_in_this_release.message()
        with app.worker():
            app.record(JobUnhandled)
            known = app.broker.actors.pop("added_in_this_release")  # the old worker takes it first
            app.broker.enqueue(command)
            app.wait(lambda: app.of(JobUnhandled), "the refusal")
            app.broker.actors["added_in_this_release"] = known
            app.wait(lambda: app.ended(command.job_id).result == "done", "its run by the worker that knows it")
