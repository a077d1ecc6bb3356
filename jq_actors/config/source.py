"""From a place to plain data: finding the configuration, reading its YAML, expanding ``${VAR}``.

Each step adds what is wrong to one list of problems and goes on, so that a person sees all of them at once.
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
"""Where it is looked for in the working directory when `CONFIG_VARIABLE` is not set."""

BUILT_IN: Mapping[str, Any] = {
    "broker": {"url": "${JQ_BROKER_URL:-embedded://}"},
    "middleware": [
        {"persistence": {"url": "${JQ_DATABASE_URL:-sqlite+aiosqlite:///jq_actors.db}"}},
        "group_fifo",
        "retry",
        "time_limit",
    ],
}
"""What counts when there is no file: embedded broker and SQLite, each replaceable by its variable."""

_VARIABLE = re.compile(r"\$(?:(?P<escaped>\$(?=\{))|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^{}]*))?\})")
_TYPED_TAGS = {"tag:yaml.org,2002:int", "tag:yaml.org,2002:bool"}


def find_config() -> Path | None:
    """The configuration file that counts here: of ``$JQ_CONFIG``, else the first existing of `SEARCHED`, else
    none.

    The file named by the variable is returned whether it exists or not: a wrong name must be an error.
    """
    named = os.environ.get(CONFIG_VARIABLE)
    if named:
        return Path(named)
    return next((path for path in SEARCHED if path.is_file()), None)


def read_yaml(path: Path, problems: list[Problem]) -> Any:
    """The content of the YAML file ``path``; an empty file is an empty mapping."""
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
        problems.append(Problem("", f"the file is no valid YAML: {' '.join(str(error).split())}"))
        return {}


def expand(value: Any, path: str, problems: list[Problem]) -> Any:
    """``value`` with each ``${VAR}`` and ``${VAR:-default}`` in its texts replaced by the environment's.

    As in a shell, the default also replaces an empty variable, and ``$${`` stands for ``${``. A text that is
    one variable and nothing else becomes an int or a bool where YAML would read one.
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
        problems.append(Problem(path, "has a ${ that is no ${VAR} or ${VAR:-default}; write $${ for a literal one"))
        return text
    expanded = _VARIABLE.sub(replaced, text)
    whole = _VARIABLE.fullmatch(text)
    return _typed(expanded) if whole and whole["name"] else expanded


def _typed(text: str) -> Any:
    tag = yaml.SafeLoader("").resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call] # untyped there
    return yaml.safe_load(text) if tag in _TYPED_TAGS else text


def _find_duplicates(node: yaml.Node | None, path: str, problems: list[Problem]) -> None:
    # PyYAML lets the last of two equal keys win without a word (YAML 1.2 §3.2.1.3 forbids them).
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
