"""Find the configuration file, read its YAML and expand ``${VAR}``: from a path to plain data.

Each step appends the problems it finds to one list and continues, so that people see all of them at once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from jq_actors.errors import Problem

CONFIG_VARIABLE = "JQ_CONFIG"
"""The environment variable that names the configuration file."""
SEARCHED = (Path("config/jq_actors.yaml"), Path("jq_actors.yaml"))
"""Where `find_config` looks in the working directory when `CONFIG_VARIABLE` is not set."""

BUILT_IN: Mapping[str, Any] = {
    "broker": {"url": "${JQ_BROKER_URL:-embedded://}"},
    "middleware": [
        {"persistence": {"url": "${JQ_DATABASE_URL:-sqlite+aiosqlite:///jq_actors.db}"}},
        "group_fifo",
        "retry",
        "time_limit",
    ],
}
"""The configuration when there is no file: embedded broker and SQLite, each of which a variable can replace."""

_VARIABLE = re.compile(r"\$(?:(?P<escaped>\$(?=\{))|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^{}]*))?\})")
_TYPED_TAGS = {"tag:yaml.org,2002:int", "tag:yaml.org,2002:bool"}


def find_config() -> Path | None:
    """Find the configuration file: the one that ``$JQ_CONFIG`` names, else the first of `SEARCHED` that exists.

    Returns ``None`` if there is none. The file that the variable names is returned even if it does not exist: a wrong
    name must become an error when the file is read.
    """
    named = os.environ.get(CONFIG_VARIABLE)
    if named:
        return Path(named)
    return next((path for path in SEARCHED if path.is_file()), None)


def read_yaml(path: Path, problems: list[Problem]) -> Any:
    """Read the YAML file ``path``. An empty or unreadable file gives an empty mapping."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        problems.append(Problem("", f"the file {str(path)!r} cannot be read: {reason}"))
        return {}
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        _find_duplicates(node, "", problems)
        return {} if node is None else yaml.safe_load(text)
    except yaml.YAMLError as error:
        problems.append(Problem("", f"the file is not valid YAML: {' '.join(str(error).split())}"))
        return {}


def expand(value: Any, path: str, problems: list[Problem]) -> Any:
    """Replace each ``${VAR}`` and ``${VAR:-default}`` in the texts of ``value`` from the environment.

    As in a shell, the default also applies if the variable is empty. ``$${`` stands for ``${``. A text that consists of
    one variable becomes an int or a bool where YAML would read one.

    Parameters:
      value: data as YAML gives it: mappings, lists, texts, numbers.
      path: the key path of ``value``, for problems.
      problems: gets a problem for each missing variable and each malformed ``${``.
    """
    match value:
        case Mapping():
            return {key: expand(item, join(path, key), problems) for key, item in value.items()}
        case list() | tuple():
            return [expand(item, f"{path}[{index}]", problems) for index, item in enumerate(value)]
        case str() if "${" in value:
            return _expand_text(value, path, problems)
    return value


def join(path: str, key: object) -> str:
    """The key path of ``key`` below ``path``."""
    return f"{path}.{key}" if path else str(key)


def _expand_text(text: str, path: str, problems: list[Problem]) -> Any:
    def replaced(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "$"
        name, default = match["name"], match["default"]
        found = os.environ.get(name)
        if default is not None:
            return found or default
        if found is None:
            problems.append(
                Problem(path, f"the environment variable {name} is not set, and there is no ${{{name}:-default}}")
            )
        return found or ""

    if "${" in _VARIABLE.sub("", text):
        problems.append(Problem(path, "has a ${ that is not ${VAR} or ${VAR:-default}; write $${ for a literal one"))
        return text
    expanded = _VARIABLE.sub(replaced, text)
    whole = _VARIABLE.fullmatch(text)
    return _typed(expanded) if whole and whole["name"] else expanded


def _typed(text: str) -> Any:
    tag = yaml.SafeLoader("").resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call] # PyYAML is untyped
    return yaml.safe_load(text) if tag in _TYPED_TAGS else text


def _find_duplicates(node: yaml.Node | None, path: str, problems: list[Problem]) -> None:
    # Of two equal keys PyYAML silently takes the last one; YAML 1.2 (§3.2.1.3) forbids equal keys.
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _find_duplicates(item, f"{path}[{index}]", problems)
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, item in node.value:
            where, line = join(path, key.value), key.start_mark.line + 1
            if key.value in seen:
                problems.append(Problem(where, f"is written twice, in lines {seen[key.value]} and {line}"))
            seen[str(key.value)] = line
            _find_duplicates(item, where, problems)
