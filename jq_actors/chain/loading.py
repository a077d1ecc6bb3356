"""Builds the chain of middleware from ``middleware:`` in the configuration, and reports every mistake in it."""

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
      ConfigError: lists every unknown name, unknown or missing option, refused value, middleware that is listed before
        one that it requires, and middleware that is listed twice, each with its key path.
    """
    problems: list[Problem] = []
    chain = _build(dict(enumerate(config.middleware)), problems)
    if problems:
        raise ConfigError(problems)
    return chain


def find_problems(specs: Mapping[int, MiddlewareSpec]) -> list[Problem]:
    """The problems that `build_middleware` would report for these entries of the list, given by index."""
    problems: list[Problem] = []
    _build(specs, problems)
    return problems


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry of the list with its class, and the entries before it."""

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
    """Problems of the entry's position; ``layer`` is the instance made from it, or its class if none was made."""
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
    """Whether ``entry`` is the middleware of the short name ``name``, given by that name or by its class path."""
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
    """The path of the option that ``sentence`` begins with, or of the only given option that it mentions."""
    first = re.match(r"\w*", sentence)
    if first is not None and first[0] in entry.spec.options:
        return f"{entry.path}.{first[0]}"
    named = [name for name in entry.spec.options if re.search(rf"\b{re.escape(name)}\b", sentence)]
    return f"{entry.path}.{named[0]}" if len(named) == 1 else entry.path
