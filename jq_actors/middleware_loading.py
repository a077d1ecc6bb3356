"""From ``middleware:`` of the configuration to the chain of instances, with every mistake named."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence

import dramatiq

from .config import Config, MiddlewareSpec, did_you_mean
from .errors import ConfigError, Problem
from .middleware import JobMiddleware, load_class


def build_middleware(config: Config) -> list[dramatiq.Middleware]:
    """The chain of ``config``, outermost first, each made with its options as keyword arguments.

    Raises:
      ConfigError: unknown names, unknown or missing options, refused values, a middleware that comes before
        one that it requires, or one listed twice; all of them, each with its key path.
    """
    problems: list[Problem] = []
    classes = [_load(index, spec, problems) for index, spec in enumerate(config.middleware)]
    _check_order(config.middleware, classes, problems)
    chain = [
        _make(_path(index, spec), class_, spec, problems)
        for index, (spec, class_) in enumerate(zip(config.middleware, classes, strict=True))
        if class_ is not None
    ]
    if problems:
        raise ConfigError(problems)
    return [layer for layer in chain if layer is not None]


def _path(index: int, spec: MiddlewareSpec) -> str:
    return f"middleware[{index}].{spec.name}"


def _load(index: int, spec: MiddlewareSpec, problems: list[Problem]) -> type[dramatiq.Middleware] | None:
    try:
        return load_class(spec.name)
    except ValueError as error:
        problems.append(Problem(f"middleware[{index}]", str(error)))
        return None


def _check_order(
    specs: Sequence[MiddlewareSpec],
    classes: Sequence[type[dramatiq.Middleware] | None],
    problems: list[Problem],
) -> None:
    for index, (spec, class_) in enumerate(zip(specs, classes, strict=True)):
        if class_ is None:
            continue
        if class_ in classes[:index]:
            first = _path(classes.index(class_), specs[classes.index(class_)])
            problems.append(Problem(_path(index, spec), f"is listed twice; the first is {first}"))
        if issubclass(class_, JobMiddleware):
            for required in sorted(class_.requires):
                if not _listed(required, specs[:index], classes[:index]):
                    later = _listed(required, specs[index:], classes[index:])
                    wrong = "which comes later; move it up" if later else "which is not listed"
                    problems.append(Problem(_path(index, spec), f"must come after {required}, {wrong}"))


def _listed(
    name: str, specs: Sequence[MiddlewareSpec], classes: Sequence[type[dramatiq.Middleware] | None]
) -> bool:
    if any(spec.name == name for spec in specs):
        return True
    try:
        class_ = load_class(name)
    except ValueError:  # not installed under its short name: then nothing in the list can be it
        return False
    return class_ in classes


def _make(
    path: str, class_: type[dramatiq.Middleware], spec: MiddlewareSpec, problems: list[Problem]
) -> dramatiq.Middleware | None:
    wrong = _signature_problems(path, class_, spec)
    problems.extend(wrong)
    if wrong:
        return None
    try:
        return class_(**spec.options)
    except (TypeError, ValueError) as error:
        problems.append(Problem(_option_path(path, spec, str(error)), str(error)))
        return None


def _signature_problems(path: str, class_: type[dramatiq.Middleware], spec: MiddlewareSpec) -> list[Problem]:
    parameters = inspect.signature(class_).parameters
    keywords = {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    }
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    unknown = [] if takes_any else [name for name in spec.options if name not in keywords]
    missing = [
        name
        for name, parameter in keywords.items()
        if parameter.default is inspect.Parameter.empty and name not in spec.options
    ]
    return [
        *(Problem(f"{path}.{name}", f"unknown option; {did_you_mean(name, keywords)}") for name in unknown),
        *(Problem(f"{path}.{name}", "is required") for name in missing),
    ]


def _option_path(path: str, spec: MiddlewareSpec, sentence: str) -> str:
    """``path`` with the option that ``sentence`` speaks of, where it names just one of those given."""
    named = [name for name in spec.options if re.search(rf"\b{re.escape(name)}\b", sentence)]
    return f"{path}.{named[0]}" if len(named) == 1 else path
