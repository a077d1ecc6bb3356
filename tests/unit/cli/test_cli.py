"""The command line without servers: what it refuses, in which words and with which exit code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dramatiq
import pytest
from typer.testing import CliRunner, Result

from jq_actors.cli.app import app
from jq_actors.process.installed import install

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, with a configuration that needs no servers, and a broker that has read none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JQ_CONFIG", "jq_actors.yaml")  # set, so that it is put back
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "jq_actors.yaml").write_text("middleware: []\n")
    broker = install()
    yield tmp_path
    broker.close()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def columns(result: Result) -> list[list[str]]:
    """The cells of a printed table, without its headings."""
    return [re.split(r"\s{2,}", line.strip()) for line in result.stdout.splitlines()[1:]]


# -- all commands -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    ["worker", "check", "db upgrade", "db current", "demo"]
    + [f"jobs {command}" for command in ("list", "show", "retry", "move")]
    + [f"groups {command}" for command in ("list", "show", "pause", "resume", "cancel")],
)
def test_help_tells_the_exit_codes(command: str) -> None:
    result = run(*command.split(), "--help")
    assert result.exit_code == 0
    assert "Exit codes: 0 " in result.stdout


def test_the_versions_are_printed() -> None:
    result = run("--version")
    assert result.exit_code == 0
    assert result.stdout == f"jq_actors 0.1.0, dramatiq {dramatiq.__version__}\n"


@pytest.mark.parametrize("command", ["worker m", "db upgrade", "db current", "jobs list", "jobs show x", "groups list"])
def test_a_broken_configuration_is_told_on_stderr_with_exit_code_2(here: Path, command: str) -> None:
    (here / "jq_actors.yaml").write_text("brokre: {}\nworker: {lease: 1}\n")
    result = run(*command.split())
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == (
        "error: jq_actors.yaml has 2 problem(s):\n"
        "  - worker.lease: must be at least 1s, not 1ms\n"
        "  - brokre: unknown key; did you mean broker?\n"
    )


@pytest.mark.parametrize("command", ["worker m", "check", "db upgrade", "jobs list"])
def test_the_configuration_can_be_named(here: Path, command: str) -> None:
    (here / "other.yaml").write_text("nonsense: 1\n")
    result = run(*command.split(), "--config", "other.yaml")
    assert result.exit_code != 0
    assert "nonsense: unknown key" in result.output
    assert os.environ["JQ_CONFIG"] == str(here / "other.yaml")  # its processes read the same


@pytest.mark.parametrize(
    "command",
    [
        *("db upgrade", "db current", "jobs list", "jobs show x", "jobs retry x", "jobs move x --front"),
        *("groups list", "groups show g", "groups pause g --reason r", "groups resume g", "groups cancel g --reason r"),
    ],
)
def test_what_needs_rows_says_so_without_persistence(command: str) -> None:
    result = run(*command.split())
    assert result.exit_code == 1
    assert result.stderr.endswith("needs the `persistence` middleware; add it to `middleware:`.\n")


def test_it_is_a_program_and_a_module() -> None:
    script = Path(sys.executable).with_name("jq-actors")
    for command in ([str(script)], [sys.executable, "-m", "jq_actors.cli"]):
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout.startswith("jq_actors ")
        done = subprocess.run([*command, "jobs", "list"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.count("\n") == 1


# -- worker -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("", "name a module with actors, or list one under `imports`"),
        ("m --memory-limit 5X", "--memory-limit: '5X' is not a size"),
        ("m --queues a,,b", "--queues: the name '' must be"),
        ("m --queues a --queues b*", "--queues: the name 'b*' must be"),
        ("m --id me/too", "--id: the name 'me/too' must be"),
        ("m --time-limit 0", "--time-limit"),
        ("m --limit 0", "--limit"),
        ("m --failure-limit -1", "--failure-limit"),
        ("m --processes 0", "--processes"),
        ("m --threads 0", "--threads"),
        ("m --memry-limit 5", "No such option: --memry-limit"),
    ],
)
def test_a_wrong_command_line_starts_no_worker(arguments: str, told: str) -> None:
    result = run("worker", *arguments.split())
    assert result.exit_code == 2
    assert told in result.stderr.splitlines()[-1]


# -- check ------------------------------------------------------------------------------------------------


def test_check_finds_nothing_wrong(here: Path) -> None:
    (here / "fine_jobs.py").write_text("from jq_actors import actor\n@actor(queue_name='mail')\ndef send(): ...\n")
    result = run("check", "fine_jobs")
    assert result.exit_code == 0, result.output
    found = columns(result)
    assert ["ok", "configuration", "jq_actors.yaml"] in found
    assert ["ok", "imports", "fine_jobs"] in found
    assert ["ok", "actors", "send"] in found


def test_check_goes_on_after_problems_and_tells_them_all(here: Path) -> None:
    (here / "jq_actors.yaml").write_text(
        "imports: [no_such_module, broken_jobs]\nqueues: {mial: {concurrency: 1}}\nmiddleware: []\nactors: {sned: {}}\n"
    )
    (here / "broken_jobs.py").write_text("raise RuntimeError('at import\\x1b[31m')\n")
    (here / "some_jobs.py").write_text("from jq_actors import actor\n@actor(queue_name='mail')\ndef send(): ...\n")
    result = run("check", "some_jobs")
    assert result.exit_code == 1
    found = columns(result)
    assert [
        "PROBLEM",
        "imports",
        "no_such_module: ModuleNotFoundError: No module named 'no_such_module'",
    ] in found
    assert ["PROBLEM", "imports", r"broken_jobs: RuntimeError: at import\x1b[31m"] in found
    assert ["ok", "imports", "some_jobs"] in found
    assert ["PROBLEM", "actors", "actors.sned: no such actor is imported; did you mean send?"] in found
    assert [
        "warning",
        "queues",
        "queues.mial: no imported actor uses this queue; did you mean mail?",
    ] in found
    assert any(part == "broker" for _, part, _ in found)
    assert result.stderr == "error: 3 problem(s) found.\n"


def test_check_tells_all_problems_of_the_configuration(here: Path) -> None:
    (here / "jq_actors.yaml").write_text("broker: {url: 'http://u:hidden@h'}\nqueues: {q: {concurrency: 0}}\n")
    result = run("check")
    assert result.exit_code == 1
    assert "hidden" not in result.output
    assert [(kind, part) for kind, part, _ in columns(result)] == [("PROBLEM", "configuration")] * 2
    assert "jq_actors.yaml: queues.q.concurrency: must be at least 1, not 0" in result.stdout


def test_check_tells_problems_of_the_middleware_and_still_imports(here: Path) -> None:
    (here / "jq_actors.yaml").write_text("imports: [no_such_module]\nmiddleware: [nosuch]\n")
    result = run("check")
    assert result.exit_code == 1
    assert "middleware[0]: unknown middleware 'nosuch'" in result.stdout
    assert "no_such_module: ModuleNotFoundError" in result.stdout


def test_check_tells_that_the_broker_cannot_be_reached_without_its_password(here: Path) -> None:
    (here / "jq_actors.yaml").write_text("broker: {url: 'amqp://u:hidden@127.0.0.1:1/'}\nmiddleware: []\n")
    result = run("check")
    assert result.exit_code == 1
    assert "PROBLEM  broker" in result.stdout
    assert "hidden" not in result.output


# -- jobs -------------------------------------------------------------------------------------------------


@pytest.fixture
def rows(here: Path) -> None:
    """Persistence in an empty SQLite file."""
    (here / "jq_actors.yaml").write_text("middleware: [{persistence: {url: 'sqlite+aiosqlite:///jobs.db'}}]\n")


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--state done", "Unknown job state 'done'; allowed are scheduled, queued"),
        ("--limit 0", "limit is 0; allowed are 1 to 1000"),
        ("--after nonsense", "nonsense"),
    ],
)
def test_a_wrong_question_is_told(arguments: str, told: str) -> None:
    result = run("jobs", "list", *arguments.split())
    assert result.exit_code == 2
    assert told in result.stderr


@pytest.mark.usefixtures("rows")
def test_an_unknown_job_is_told() -> None:
    for job_id in ("01890a5d-ac96-774b-bcce-b302099a8057", "no-id-at-all"):
        result = run("jobs", "show", job_id)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == f"error: There is no job {job_id}.\n"


@pytest.mark.usefixtures("rows")
def test_no_jobs_are_an_empty_list() -> None:
    assert json.loads(run("jobs", "list", "--json").stdout) == {"jobs": [], "cursor": None}
    assert columns(run("jobs", "list")) == []


def test_control_characters_reach_no_terminal(here: Path) -> None:
    (here / "jq_actors.yaml").write_text('"bro\\e[31mker\\u0085\\u2028": 1\n')
    for command in (("check",), ("jobs", "list")):
        result = run(*command)
        assert result.exit_code != 0
        assert not CONTROL.search(result.output), result.output


# -- jobs and groups --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("jobs retry", "Say which jobs to retry"),
        ("jobs retry x --state failed", "not by both"),
        ("jobs retry --state running", "Say which jobs to retry"),
        ("jobs retry --state failed --limit 0", "limit is 0"),
        ("jobs move x", "Say where to move the job"),
        ("jobs move x --front --group g", "Say where to move the job"),
        (f"jobs move x --group {'g' * 513}", "A group's name must be"),
        ("groups list --state busy", "Unknown group state 'busy'"),
        ("groups list --limit 1001", "limit is 1001"),
        ("groups pause g", "Missing option '--reason'"),
        (f"groups show {'g' * 513}", "A group's name must be"),
    ],
)
def test_a_wrong_command_line_changes_nothing(arguments: str, told: str) -> None:
    result = run(*arguments.split())
    assert result.exit_code == 2
    assert told in result.stderr


def test_a_reason_has_to_say_something() -> None:
    for command in ("pause", "cancel"):
        result = run("groups", command, "g", "--reason", " ")
        assert result.exit_code == 2
        assert "Say why" in result.stderr
