"""`jq-actors jobs`: what was run is found, page by page, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from jq_actors import actor
from tests.conftest import StartWorker
from tests.support.application import Application, Place, running

Cli = Callable[..., str]

in_one_place = pytest.mark.parametrize("place_with_rows", ["embedded_rows"], indirect=True)
"""For what does not depend on the database: the conformance suite reads the same from each."""


@pytest.fixture
def jobs_cli(start_worker: StartWorker, tmp_path: Path, place_with_rows: Place) -> Cli:
    """Run `jq-actors jobs …` in the place, to a good end; returns what it printed."""
    (tmp_path / "jq_actors.yaml").write_text(yaml.safe_dump(place_with_rows.configuration))

    def run(*arguments: str) -> str:
        process = start_worker("jq-actors", "jobs", *arguments)
        assert process.wait() == 0, process.text
        return process.text

    return run


class Ran:
    """Twelve jobs that have run: ten succeeded, two failed."""

    def __init__(self, application: Application) -> None:
        @actor(queue_name="mail")
        async def fine(number: int) -> dict[str, int]:
            return {"twice": number * 2}

        @actor(queue_name="other", max_retries=1, min_backoff=1, max_backoff=1)
        async def wrong(text: str) -> None:
            raise ValueError(f"no {text}")

        with application.worker():
            self.fine = [command.job_id for command in fine.send_many([((n,), {}) for n in range(10)])]
            wrong.send_with_options(args=("first",), tags=["a"])
            self.wrong = wrong.send_with_options(args=("\x1b[31mred\u0085\u2028",), tags=["a", "b"]).job_id
            for job_id in (*self.fine, self.wrong):
                application.ended(job_id)


@pytest.fixture
def ran(place_with_rows: Place) -> Iterator[Ran]:
    with running(place_with_rows.configuration) as application:
        yield Ran(application)


def listed(printed: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(printed)["jobs"]
    return found


def test_jobs_are_found_for_programs(ran: Ran, jobs_cli: Cli) -> None:
    newest_first = listed(jobs_cli("list", "--actor", "fine", "--json"))
    assert [job["id"] for job in newest_first] == ran.fine[::-1]
    job = newest_first[0]
    assert (job["actor"], job["queue"], job["state"], job["attempt"]) == ("fine", "mail", "succeeded", 1)
    assert datetime.fromisoformat(job["enqueued_at"]).utcoffset() is not None
    assert len(listed(jobs_cli("list", "--state", "failed", "--state", "succeeded", "--json"))) == 12
    assert len(listed(jobs_cli("list", "--queue", "other", "--tag", "a", "--json"))) == 2
    [both_tags] = listed(jobs_cli("list", "--tag", "a", "--tag", "b", "--json"))
    assert both_tags["id"] == ran.wrong
    assert listed(jobs_cli("list", "--group", "none", "--json")) == []


@in_one_place
def test_pages_follow_each_other(ran: Ran, jobs_cli: Cli) -> None:
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = json.loads(jobs_cli("list", "--limit", "5", "--json", *(["--after", cursor] if cursor else [])))
        found += [job["id"] for job in page["jobs"]]
        cursor = page["cursor"]
        if cursor is None:
            break
    assert len(found) == len(set(found)) == 12
    assert "note: There are more: --after " in jobs_cli("list", "--limit", "5")


def test_a_job_is_shown_with_its_attempts(ran: Ran, jobs_cli: Cli) -> None:
    shown = json.loads(jobs_cli("show", ran.fine[3], "--json"))
    assert (shown["args"], shown["result"]) == ([3], {"twice": 6})
    [attempt] = shown["attempts"]
    assert (attempt["number"], attempt["outcome"]) == (1, "succeeded")
    failed = json.loads(jobs_cli("show", ran.wrong, "--json"))
    assert (failed["state"], failed["tags"], len(failed["attempts"])) == ("failed", ["a", "b"], 2)
    assert "ValueError" in failed["error"]
    assert "Traceback" in failed["traceback"]


@in_one_place
def test_nothing_of_a_job_controls_the_terminal(ran: Ran, jobs_cli: Cli) -> None:
    for arguments in (["list"], ["show", ran.wrong], ["list", "--json"], ["show", ran.wrong, "--json"]):
        printed = jobs_cli(*arguments)
        assert "red" in printed
        assert all(c.isprintable() for c in printed.replace("\n", "")), arguments
    shown = jobs_cli("show", ran.wrong)
    assert r"\x1b[31mred\x85\u2028" in shown
    assert "Traceback (most recent call last):" in shown
