"""Load the configuration: from YAML, a mapping or the built-in defaults to one frozen, checked `Config`.

`settings` defines and documents the settings themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from jq_actors.errors import ConfigError, Problem

from .durations import format_duration, parse_duration, parse_size
from .problems import did_you_mean, to_problems
from .settings import BrokerConfig, Config, Duration, MiddlewareSpec, QueueConfig, Settings, WorkerConfig, check_name
from .source import BUILT_IN, CONFIG_VARIABLE, expand, find_config, read_yaml
from .urls import mask_url

__all__ = [
    "CONFIG_VARIABLE",
    "BrokerConfig",
    "Config",
    "Duration",
    "MiddlewareSpec",
    "QueueConfig",
    "Settings",
    "WorkerConfig",
    "check_name",
    "did_you_mean",
    "find_config",
    "format_duration",
    "load_config",
    "mask_url",
    "parse_duration",
    "parse_size",
]


Source = str | Path | Mapping[str, Any] | Config | None
"""Where a configuration comes from; see `load_config`."""
FindProblems = Callable[[Mapping[int, MiddlewareSpec]], Iterable[Problem]]


def load_config(source: Source = None, find_problems: FindProblems = lambda specs: ()) -> Config:
    """Load the configuration from ``source``.

    Parameters:
      source: the path of a YAML file; a mapping of the same shape; a ready `Config`, returned as it is; or ``None``:
        the file that ``$JQ_CONFIG`` names, else ``config/jq_actors.yaml``, else ``jq_actors.yaml`` in the working
        directory, else the built-in defaults (embedded broker, SQLite persistence, group_fifo, retry, time_limit).
      find_problems: finds the problems of entries of ``middleware``, by their index. It is called only if there are
        other problems, so that one error lists everything; otherwise they are found when the chain is built.

    Raises:
      ConfigError: lists all problems of the source, each with its key path.
    """
    if isinstance(source, Config):
        return source
    problems: list[Problem] = []
    raw, name = _read(source, problems)
    expanded = expand(raw, "", problems)
    config = _validated(expanded, problems)
    if config is None or problems:
        raise ConfigError([*problems, *_not_among(problems, find_problems(_middleware(expanded)))], name)
    return config


def _read(source: str | Path | Mapping[str, Any] | None, problems: list[Problem]) -> tuple[Any, str]:
    if isinstance(source, Mapping):
        return source, "configuration"
    path = find_config() if source is None else Path(source)
    if path is None:
        return BUILT_IN, "built-in configuration"
    return read_yaml(path, problems), str(path)


def _validated(raw: Any, problems: list[Problem]) -> Config | None:
    if not isinstance(raw, Mapping):
        problems.append(Problem("", f"must be a mapping of settings, not {type(raw).__name__}"))
        return None
    try:
        return Config.model_validate(dict(raw))
    except ValidationError as error:
        problems.extend(_not_among(problems, to_problems(error)))
        return None


def _middleware(raw: Any) -> dict[int, MiddlewareSpec]:
    """The entries of ``middleware`` whose shape is right."""
    listed = raw.get("middleware") if isinstance(raw, Mapping) else None
    specs: dict[int, MiddlewareSpec] = {}
    for index, entry in enumerate(listed if isinstance(listed, list) else ()):
        with suppress(ValidationError):  # its shape is wrong, and that is reported already
            specs[index] = MiddlewareSpec.model_validate(entry)
    return specs


def _not_among(known: Sequence[Problem], found: Iterable[Problem]) -> list[Problem]:
    """Those of ``found`` that are not mere consequences of a known problem, such as a missing variable."""
    return [
        problem
        for problem in found
        if not any(one.path == problem.path or one.path.startswith(f"{problem.path}.") for one in known)
    ]
