"""The configuration: from YAML, a mapping or nothing to one frozen, checked :class:`Config`.

The settings themselves are defined, and documented, in `settings`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from .config_source import BUILT_IN, CONFIG_VARIABLE, expand, find_config, join, read_yaml
from .durations import format_duration, parse_duration, parse_size
from .errors import ConfigError, Problem
from .settings import (
    BrokerConfig,
    Config,
    Duration,
    MiddlewareSpec,
    QueueConfig,
    Settings,
    WorkerConfig,
    check_name,
)
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


def load_config(source: str | Path | Mapping[str, Any] | Config | None = None) -> Config:
    """The configuration from ``source``.

    Parameters:
      source: path of a YAML file; a mapping of the same shape; a ready `Config`, returned as it is; or
        ``None``: the file of ``$JQ_CONFIG``, else ``config/jq_actors.yaml``, else ``jq_actors.yaml`` in the
        working directory, else built-in defaults (embedded broker, SQLite persistence, retry, time_limit).

    Raises:
      ConfigError: with all problems of the source, each with its key path. Options of middleware are checked
        when the chain is built (`middleware_loading.build_middleware`), and here too once something else is
        wrong.
    """
    if isinstance(source, Config):
        return source
    problems: list[Problem] = []
    raw, name = _read(source, problems)
    expanded = expand(raw, "", problems)
    config = _validated(expanded, problems)
    if config is None or problems:
        raise ConfigError([*problems, *_middleware_problems(expanded)], name)
    return config


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """The end of a sentence about the unknown ``word``: the nearest known one, or all that are allowed."""
    candidates = sorted(known)
    near = difflib.get_close_matches(str(word), candidates, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]}?"
    return f"allowed are {', '.join(candidates)}" if candidates else "nothing is allowed here"


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
    known_broken = {problem.path for problem in problems}
    try:
        return Config.model_validate(dict(raw))
    except ValidationError as error:
        found = [_to_problem(dict(details)) for details in error.errors(include_url=False)]
        # A variable that is missing is one problem, not a second one for the empty text that it left.
        problems.extend(problem for problem in found if problem.path not in known_broken)
        return None


def _middleware_problems(raw: Any) -> Sequence[Problem]:
    """What is wrong in ``middleware`` besides its shape, so that one error tells everything."""
    from .middleware_loading import (
        build_middleware,
    )  # it imports foreign packages: only where they are asked for

    try:
        specs = Config.model_validate({"middleware": raw.get("middleware", [])}).middleware
        build_middleware(Config(middleware=specs))
    except ConfigError as error:
        return error.problems
    except (ValidationError, AttributeError):  # its shape is wrong, which is among the problems already
        return ()
    return ()


def _to_problem(details: dict[str, Any]) -> Problem:
    location: tuple[int | str, ...] = details["loc"]
    path = ""
    for part in location:
        if part != "[key]":  # pydantic's mark for "the key itself, not its value"
            path = f"{path}[{part}]" if isinstance(part, int) else join(path, part)
    return Problem(path, _message(details, location))


def _message(details: dict[str, Any], location: tuple[int | str, ...]) -> str:
    kind, value = details["type"], details["input"]
    if kind == "extra_forbidden":
        return f"unknown key; {did_you_mean(location[-1], _model_at(location[:-1]).model_fields)}"
    if kind == "value_error":  # ours: a sentence with the value in it, masked where needed
        return str(details["ctx"]["error"])
    message = details["msg"].removeprefix("Input ").replace("should", "must")
    return f"{message}, not {_shown(value)}"


def _model_at(location: tuple[int | str, ...]) -> type[BaseModel]:
    match location:
        case ("broker",):
            return BrokerConfig
        case ("worker",):
            return WorkerConfig
        case ("queues", _):
            return QueueConfig
        case ("middleware", _):
            return MiddlewareSpec
    return Config


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = mask_url(repr(value))
    return text if len(text) <= 80 else f"{text[:77]}..."
