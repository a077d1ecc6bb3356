"""`jq-actors groups`, and what `jq-actors jobs` does to jobs of groups."""

from __future__ import annotations

import json
import os
import pty
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any
from unittest.mock import AsyncMock

import pytest
import yaml
from typer.testing import CliRunner

from jq_actors import JobId, jobs
from jq_actors.cli.app import app as commands
from jq_actors.events import JobFailed
from jq_actors.store.sql import SqlStore
from tests.conftest import StartWorker
from tests.integration.steps import Steps
from tests.integration.worker.test_groups import with_groups
from tests.support.application import Application, Place, running

Cli = Callable[..., str]
NOBODY = "00000000-0000-7000-8000-000000000000"
RED = "\x1b[31mred\u0085\u2028"


@pytest.fixture
def app(place_with_rows: Place, tmp_path: Path) -> Iterator[Application]:
    """The application, with a worker in it; the commands have the same configuration."""
    configuration = with_groups(place_with_rows)
    (tmp_path / "jq_actors.yaml").write_text(yaml.safe_dump(configuration))
    with running(configuration) as application:
        yield application


@pytest.fixture
def steps(app: Application) -> Steps:
    return Steps()


@pytest.fixture
def cli(app: Application) -> Cli:
    """Run `jq-actors …` in this process, which has no worker then, to this end; returns what it printed."""

    def run(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(commands, arguments)
        assert result.exit_code == code, result.output
        return result.output

    return run


@pytest.fixture
def elsewhere(app: Application, start_worker: StartWorker) -> Cli:
    """The same in a process of its own, beside the worker."""

    def run(*arguments: str, code: int = 0) -> str:
        process = start_worker("jq-actors", *arguments)
        assert process.wait() == code, process.text
        return process.text

    return run


@pytest.fixture(autouse=True)
def _no_group_is_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SqlStore, "mend_groups", AsyncMock(return_value=0))  # what was asked for is enough


def test_groups_are_listed_and_shown_for_programs(steps: Steps, cli: Cli) -> None:
    ids = steps.send("b", 1, 2, 3)
    steps.send("a", 1)
    jobs.pause(group="b", reason="ops: audit")
    listed = json.loads(cli("groups", "list", "--json"))
    assert ([group["name"] for group in listed["groups"]], listed["cursor"]) == (["a", "b"], None)
    [paused] = json.loads(cli("groups", "list", "--state", "paused", "--json"))["groups"]
    assert (paused["name"], paused["state"], paused["waiting"], paused["running"]) == ("b", "paused", 3, 0)
    shown = json.loads(cli("groups", "show", "b", "--json"))
    assert (shown["head"], "ops: audit" in shown["reason"]) == (ids[0], True)
    assert shown["lag"] >= 0
    assert datetime.fromisoformat(shown["oldest_due_at"]).utcoffset() is not None
    assert [job["id"] for job in shown["jobs"]] == ids
    assert [(job["place"]["number"], job["place"]["of"]) for job in shown["jobs"]] == [(1, 3), (2, 3), (3, 3)]
    assert "Nothing is known of a group 'c'" in cli("groups", "show", "c", code=1)


def test_pages_of_groups_follow_each_other(steps: Steps, cli: Cli) -> None:
    names = [f"g{number}" for number in range(7)]
    for name in names:
        steps.send(name, 1)
    first = json.loads(cli("groups", "list", "--limit", "4", "--json"))
    second = json.loads(cli("groups", "list", "--limit", "4", "--after", first["cursor"], "--json"))
    assert [group["name"] for group in first["groups"] + second["groups"]] == names
    assert second["cursor"] is None
    assert "note: There are more: --after " in cli("groups", "list", "--limit", "4")


def test_a_group_is_paused_and_resumed_from_elsewhere(app: Application, steps: Steps, elsewhere: Cli) -> None:
    with app.worker():
        assert "group g is paused" in elsewhere("groups", "pause", "g", "--reason", "ops")
        steps.send("g", 1, 2)
        steps.send("h", 1)
        app.wait(lambda: steps.ran["h"] == [1], "the other group")
        assert steps.ran["g"] == []
        assert "group g is resumed" in elsewhere("groups", "resume", "g")
        app.wait(lambda: steps.ran["g"] == [1, 2], "the resumed group")


def test_what_is_so_already_is_no_error(steps: Steps, cli: Cli) -> None:
    assert json.loads(cli("groups", "pause", "g", "--reason", "ops", "--json")) == {"group": "g", "changed": True}
    assert "group g was paused already" in cli("groups", "pause", "g", "--reason", "again")
    assert json.loads(cli("groups", "resume", "g", "--json")) == {"group": "g", "changed": True}
    assert "group g was not paused" in cli("groups", "resume", "g")


def test_failed_jobs_are_retried_from_elsewhere_in_order(app: Application, steps: Steps, elsewhere: Cli) -> None:
    ids = _failed(app, steps)
    with app.worker():
        jobs.pause(group="g", reason="ops")
        assert elsewhere("jobs", "retry", ids[2]) == f"{ids[2]}\n"
        assert elsewhere("jobs", "retry", "--state", "failed", "--group", "g").split() == ids[:2]
        jobs.resume(group="g")
        app.wait(lambda: steps.ran["g"] == [1, 2, 3], "their first order")


def test_what_cannot_be_retried_is_told(app: Application, steps: Steps, cli: Cli) -> None:
    first, second, _ = _failed(app, steps)
    assert json.loads(cli("jobs", "retry", first, "--json")) == {"retried": [first], "left": []}
    told = cli("jobs", "retry", first, second, code=1)
    assert told.startswith(f"{second}\n")
    assert f"error: Job {first} is neither failed nor cancelled" in told
    assert f"There is no job {NOBODY}" in cli("jobs", "retry", NOBODY, code=1)
    assert "note: There may be more" in cli("jobs", "retry", "--state", "failed", "--limit", "1")


def test_a_job_is_moved_and_tells_its_place(app: Application, steps: Steps, cli: Cli) -> None:
    ids = steps.send("g", 1, 2, 3)
    assert f"{ids[2]} in group g: 1 of 3" in cli("jobs", "move", ids[2], "--front")
    assert "2 of 3" in cli("jobs", "show", ids[0])
    moved = json.loads(cli("jobs", "move", ids[0], "--group", "h", "--json"))
    assert (moved["group"], moved["place"]["number"]) == ("h", 1)
    assert "There is no job" in cli("jobs", "move", NOBODY, "--front", code=1)
    with app.worker():
        app.wait(lambda: (steps.ran["g"], steps.ran["h"]) == ([3, 2], [1]), "the new order")
    cli("jobs", "move", ids[2], "--front", code=1)  # it has ended


def test_a_group_is_cancelled_when_it_is_meant(steps: Steps, cli: Cli, tmp_path: Path) -> None:
    ids = steps.send("g", 1, 2, 3)
    cancel = ("groups", "cancel", "g", "--reason", "ops: wrong file")
    assert "use --yes" in cli(*cancel, code=2)
    assert _answered("n", cancel, tmp_path) == ("Cancel 3 jobs of group g?", 1)
    assert jobs.find(state="cancelled").jobs == ()
    assert "3 jobs of group g were cancelled" in cli(*cancel, "--yes")
    assert [job.id for job in jobs.find(state="cancelled").jobs] == ids[::-1]
    assert all("wrong file" in (job.reason or "") for job in jobs.find(state="cancelled").jobs)
    steps.send("h", 1)
    assert _answered("y", (cancel[0], cancel[1], "h", *cancel[3:]), tmp_path) == ("Cancel 1 jobs of group h?", 0)


def test_nothing_of_a_group_controls_the_terminal(steps: Steps, cli: Cli) -> None:
    steps.send(RED, 1)
    all_of_them = [
        ("pause", RED, "--reason", RED),
        ("list",),
        ("list", "--json"),
        ("show", RED),
        ("show", RED, "--json"),
        ("resume", RED),
        ("cancel", RED, "--reason", RED, "--yes"),
    ]
    for command in all_of_them:
        printed = cli("groups", *command)
        assert "red" in printed
        assert all(c.isprintable() for c in printed.replace("\n", "")), command


def _failed(app: Application, steps: Steps) -> list[JobId]:
    """Three jobs of group ``g`` that have failed, and would not again."""
    app.record(JobFailed)
    steps.broken = True
    with app.worker():
        ids = steps.send("g", 1, 2, 3)
        app.wait(lambda: len(app.of(JobFailed)) == 3, "three failures")
    steps.broken = False
    return ids


def _answered(answer: str, command: tuple[str, ...], where: Path) -> tuple[str, int]:
    """The question that a command asks on a terminal, and the exit code that the answer leads to."""
    terminal, stdin = pty.openpty()
    try:
        environment: dict[str, Any] = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
        program = Path(sys.executable).with_name("jq-actors")
        with Popen([program, *command], stdin=stdin, stderr=PIPE, cwd=where, env=environment, text=True) as process:
            os.write(terminal, f"{answer}\n".encode())
            _, asked = process.communicate(timeout=30)
        return asked.split(" [")[0], process.returncode
    finally:
        os.close(terminal)
        os.close(stdin)
