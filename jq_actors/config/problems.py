"""Turn pydantic's errors into problems that people understand: a key path and a sentence."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from jq_actors.errors import Problem

from .settings import BrokerConfig, Config, MiddlewareSpec, QueueConfig, WorkerConfig
from .source import join
from .urls import mask_url


def to_problems(error: ValidationError) -> list[Problem]:
    """The problems in ``error``, which validating a `Config` raised."""
    return [Problem(_path(details["loc"]), _message(dict(details))) for details in error.errors(include_url=False)]


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """The end of a sentence about the unknown ``word``: suggests the closest known word, or lists all of them."""
    candidates = sorted(known)
    near = difflib.get_close_matches(str(word), candidates, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]}?"
    return f"allowed are {', '.join(candidates)}" if candidates else "nothing is allowed here"


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in location:
        if part != "[key]":  # pydantic's mark for an error in the key itself rather than in its value
            path = f"{path}[{part}]" if isinstance(part, int) else join(path, part)
    return path


def _message(details: dict[str, Any]) -> str:
    location, context = details["loc"], details.get("ctx", {})
    shown = _shown(details["input"])
    match details["type"]:
        case "extra_forbidden":
            return f"unknown key; {did_you_mean(location[-1], _model_at(location[:-1]).model_fields)}"
        case "value_error":  # raised by our own checks: a sentence that has the value in it, masked where needed
            return str(context["error"])
        case "greater_than_equal":
            return f"must be at least {_shown(context['ge'])}, not {shown}"
        case "less_than_equal":
            return f"must be at most {_shown(context['le'])}, not {shown}"
        case "int_type" | "int_parsing" | "int_from_float":
            return f"must be a whole number, not {shown}"
        case "tuple_type":
            return f"must be a list, not {shown}"
        case "dict_type" | "model_type" | "model_attributes_type":
            return f"must be a mapping, not {shown}"
    return f"{details['msg'].removeprefix('Input ').replace('should', 'must')}, not {shown}"


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
    match value:
        case Mapping():
            return "a mapping"
        case list() | tuple():
            return "a list"
    text = mask_url(repr(value))
    return text if len(text) <= 80 else f"{text[:77]}..."
