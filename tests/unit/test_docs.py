"""The documents are complete: each setting, with its default, and each option of the command line."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import fields
from datetime import timedelta
from pathlib import Path

import pytest
import typer.main
import yaml

from jq_actors.chain.middleware import JobMiddleware
from jq_actors.cli.app import app
from jq_actors.config.loading import BrokerConfig, Settings, WorkerConfig, parse_duration, parse_size
from jq_actors.model.group_rules import GroupRule
from jq_middleware.group_fifo import GroupFifo
from jq_middleware.persistence import Persistence
from jq_middleware.retry import Retry
from jq_middleware.time_limit import TimeLimit

ROOT = Path(__file__).resolve().parents[2]
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()
COMMAND_LINE = (ROOT / "docs" / "cli.md").read_text()
COMPLETE = yaml.safe_load((ROOT / "config" / "jq_actors.yaml").read_text())

SECTIONS: dict[str, type[Settings]] = {"broker": BrokerConfig, "worker": WorkerConfig}
MIDDLEWARE: dict[str, type[JobMiddleware]] = {
    "persistence": Persistence,
    "group_fifo": GroupFifo,
    "retry": Retry,
    "time_limit": TimeLimit,
}


def documented(heading: str) -> dict[str, str]:
    """The first two columns of the table below a heading."""
    [section] = re.findall(rf"^#+ {heading}\n(.*?)(?=^#|\Z)", CONFIGURATION, re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \|", section, re.MULTILINE)
    return {name: default.strip("` ") for name, default in rows}


def same(written: str, value: object) -> bool:
    """Whether what is written means this value."""
    match value:
        case timedelta():
            return parse_duration(written) == value
        case int():
            return parse_size(written) == value
        case tuple():
            return written == str(list(value))
    return written == value


@pytest.mark.parametrize("section", SECTIONS)
def test_each_setting_is_documented_with_its_default(section: str) -> None:
    fields = SECTIONS[section].model_fields
    table = documented(section)
    assert table.keys() == fields.keys()
    for name, field in fields.items():
        assert same(table[name], field.default), name
        assert field.description, f"{section}.{name} has no docstring"


@pytest.mark.parametrize("name", MIDDLEWARE)
def test_each_option_of_a_middleware_is_documented(name: str) -> None:
    assert documented(name).keys() == inspect.signature(MIDDLEWARE[name]).parameters.keys()


def test_the_complete_file_is_complete_and_has_the_defaults() -> None:
    for section, settings in SECTIONS.items():
        missing = settings.model_fields.keys() - COMPLETE[section].keys()
        assert missing <= {"delivery_limit"}  # for quorum queues only, so it is there as a comment
        for name in settings.model_fields.keys() - missing - {"url"}:
            assert same(str(COMPLETE[section][name]), settings.model_fields[name].default), name
    [*entries] = COMPLETE["middleware"]
    assert [name for entry in entries for name in entry] == list(MIDDLEWARE)
    for entry in entries:
        for name, options in entry.items():
            assert options.keys() == inspect.signature(MIDDLEWARE[name]).parameters.keys()


def test_each_key_of_a_rule_for_groups_is_documented_with_its_default() -> None:
    table, [written] = documented("A rule"), COMPLETE["middleware"][1]["group_fifo"]["rules"]
    rule = GroupFifo(rules=[written]).group_rules.rules[0]
    assert rule == GroupRule()  # the complete file has the defaults
    assert list(written) == list(table) == [field.name for field in fields(GroupRule)]
    documented_rule = {name: yaml.safe_load(default) for name, default in table.items()}
    assert GroupFifo(rules=[{**documented_rule, "match": "*"}]).group_rules.rules[0] == rule


def _options() -> Iterator[tuple[str, str]]:
    group = typer.main.get_group(app)
    for name, command in group.commands.items():
        for inner in getattr(command, "commands", {name: command}).values():
            for parameter in inner.params:
                yield from ((inner.name or "", option) for option in parameter.opts if option.startswith("--"))


def test_each_option_of_the_command_line_is_documented() -> None:
    options = {option for _, option in _options()} - {"--help"}
    assert {"--limit", "--json", "--config"} <= options
    assert {option for option in options if f"`{option}" not in COMMAND_LINE} == set()


@pytest.mark.parametrize(
    "document", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
)
def test_each_file_that_a_document_names_exists(document: Path) -> None:
    text = document.read_text()
    named = re.findall(r"`((?:jq_actors|middleware|tests|benchmarks|examples|config|docs)/[\w./-]*[\w/])`", text)
    linked = re.findall(r"\]\(([\w./-]+?\.md)(?:#[\w-]+)?\)", text)
    missing = [name for name in named if not (ROOT / name).exists()]
    missing += [name for name in linked if not (document.parent / name).exists()]
    assert not missing
