"""From ``middleware:`` of the configuration to the chain of instances, with every mistake named."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points

import dramatiq

from jq_actors.config.problems import did_you_mean
from jq_actors.config.settings import Config, MiddlewareSpec
from jq_actors.errors import ConfigError, Problem

from .middleware import ENTRY_POINT_GROUP, JobMiddleware, load_class

_KEYWORD_KINDS = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def build_middleware(config: Config) -> list[dramatiq.Middleware]:
    """The chain of ``config``, outermost first, each made with its options as keyword arguments.

    Raises:
      ConfigError: unknown names, unknown or missing options, refused values, a middleware that comes before
        one that it requires, or one listed twice; all of them, each with its key path.
    """
    problems: list[Problem] = []
    chain = _build(dict(enumerate(config.middleware)), problems)
    if problems:
        raise ConfigError(problems)
    return chain


def find_problems(specs: Mapping[int, MiddlewareSpec]) -> list[Problem]:
    """What `build_middleware` would find in these entries of the list, by their index."""
    problems: list[Problem] = []
    _build(specs, problems)
    return problems


@dataclass(frozen=True, slots=True)
class _Entry:
    """One entry of the list with its class, and those before it."""

    path: str
    spec: MiddlewareSpec
    class_: type[dramatiq.Middleware]
    earlier: tuple[_Entry, ...]


def _build(specs: Mapping[int, MiddlewareSpec], problems: list[Problem]) -> list[dramatiq.Middleware]:
    listed = {spec.name for spec in specs.values()}
    entries: list[_Entry] = []
    chain: list[dramatiq.Middleware] = []
    for index, spec in specs.items():
        try:
            class_ = load_class(spec.name)
        except (ValueError, ImportError, AttributeError) as error:
            problems.append(Problem(f"middleware[{index}]", str(error)))
            continue
        entry = _Entry(f"middleware[{index}].{spec.name}", spec, class_, tuple(entries))
        entries.append(entry)
        made = list(_make(entry, problems))
        chain.extend(made)
        problems.extend(_order_problems(entry, made[0] if made else class_, listed))
    return chain


def _order_problems(
    entry: _Entry, layer: dramatiq.Middleware | type[dramatiq.Middleware], listed: Collection[str]
) -> Iterator[Problem]:
    """What is wrong with its place; ``layer``: what was made of the entry, else its class."""
    for other in entry.earlier:
        if other.class_ is entry.class_:
            yield Problem(entry.path, f"is listed twice; the first is {other.path}")
    requires = getattr(layer, "requires", ()) if issubclass(entry.class_, JobMiddleware) else ()
    for required in sorted(requires):
        if not any(_is(required, other) for other in entry.earlier):
            what = "which comes later; move it up" if required in listed else "which is not listed"
            why = f": {requires[required]}" if isinstance(requires, Mapping) else ""
            yield Problem(entry.path, f"must come after {required}, {what}{why}")


def _is(name: str, entry: _Entry) -> bool:
    """Whether ``entry`` has the short name ``name``, or is written as the path of what has it."""
    points = entry_points(group=ENTRY_POINT_GROUP, name=name)
    return entry.spec.name == name or any(point.load() is entry.class_ for point in points)


def _make(entry: _Entry, problems: list[Problem]) -> Iterator[dramatiq.Middleware]:
    wrong = list(_signature_problems(entry))
    problems.extend(wrong)
    if not wrong:
        try:
            yield entry.class_(**entry.spec.options)
        except (TypeError, ValueError) as error:
            problems.append(Problem(_option_path(entry, str(error)), str(error)))


def _signature_problems(entry: _Entry) -> Iterator[Problem]:
    parameters = inspect.signature(entry.class_).parameters
    keywords = [name for name, parameter in parameters.items() if parameter.kind in _KEYWORD_KINDS]
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    for name in entry.spec.options:
        if name not in keywords and not takes_any:
            yield Problem(f"{entry.path}.{name}", f"unknown option; {did_you_mean(name, keywords)}")
    for name in keywords:
        if parameters[name].default is inspect.Parameter.empty and name not in entry.spec.options:
            yield Problem(f"{entry.path}.{name}", "is required")


def _option_path(entry: _Entry, sentence: str) -> str:
    """The path of the option that ``sentence`` begins with, or else names alone of those given."""
    first = re.match(r"\w*", sentence)
    if first is not None and first[0] in entry.spec.options:
        return f"{entry.path}.{first[0]}"
    named = [name for name in entry.spec.options if re.search(rf"\b{re.escape(name)}\b", sentence)]
    return f"{entry.path}.{named[0]}" if len(named) == 1 else entry.path
