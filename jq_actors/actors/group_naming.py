"""The name of a job's group: by the actor's option ``group``, and what may stand beside it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from inspect import BoundArguments, Parameter
from string import Formatter
from typing import Any

from jq_actors.config.problems import did_you_mean
from jq_actors.errors import ActorOptionError
from jq_actors.model.group_rules import check_group

from .arguments import Arguments

_VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


class OfActor(Enum):
    """What the option ``group`` of a sending is when it is not given: ``None`` means that there is no group."""

    OF_ACTOR = "the actor's"


OF_ACTOR = OfActor.OF_ACTOR


class GroupNaming:
    """Names the groups of one actor's jobs.

    Parameters:
      owner: the subject of an error's sentence, such as ``Actor 'send_mail'``.
      option: a template of text and names of parameters in braces, each with a format if need be
        (``"account-{account_id}"``, ``"day-{when:%Y-%m-%d}"``); a function that takes the actor's arguments and
        returns the name, or ``None``; or ``None``: no job has a group.
      arguments: the actor's.

    Raises:
      ActorOptionError: it could never name a group; says what is allowed.
    """

    def __init__(self, owner: str, option: object, arguments: Arguments) -> None:
        self._owner, self._arguments = owner, arguments
        try:
            self._name = None if option is None else _namer(option, arguments.signature)
        except ValueError as error:
            raise ActorOptionError(f"{owner}: option 'group': {error}.") from error

    @property
    def names_groups(self) -> bool:
        """Whether a job of the actor may have a group by this."""
        return self._name is not None

    def __call__(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
        """The group of a job with these arguments, given as JSON: of the values that the actor will get.

        Raises:
          ActorOptionError: the template does not fit the values, the function raised, or what they gave is no name.
          ArgumentError: the arguments do not bind, or one does not fit its annotation.
        """
        if self._name is None:
            return None
        bound = self._arguments.bind(args, kwargs)
        try:
            group = self._name(bound)
        except Exception as error:  # of the user's function, or of a value's own formatting
            raise ActorOptionError(
                f"{self._owner}: option 'group' could not name a group: {type(error).__name__}: {error}"
            ) from error
        return checked_group(self._owner, group)


def checked_group(owner: str, group: object) -> str | None:
    """``group``, if it is the name of one, or ``None``.

    Raises:
      ActorOptionError: says what is allowed.
    """
    if group is None:
        return None
    try:
        return check_group(group)
    except ValueError as error:
        raise ActorOptionError(f"{owner}: option 'group': {error}.") from error


def check_no_priority(owner: str, priority: int) -> None:
    """Check that what has a group has no priority: it would break the order.

    Raises:
      ActorOptionError: it has one.
    """
    if priority:
        raise ActorOptionError(
            f"{owner}: priority {priority} in a group, whose jobs run in their order; give priority 0, or group=None."
        )


def _namer(option: object, signature: inspect.Signature) -> Callable[[BoundArguments], object]:
    if isinstance(option, str):
        _check_template(option, [p.name for p in signature.parameters.values() if p.kind not in _VARIADIC])
        return lambda bound: option.format_map(bound.arguments)
    if not callable(option):
        raise ValueError(f"must be a template such as 'account-{{account_id}}', a function, or None, not {option!r}")
    if inspect.iscoroutinefunction(option):
        raise ValueError(f"{option!r} is a coroutine function; it must return the name at once")
    _check_takes(option, signature)
    return lambda bound: option(*bound.args, **bound.kwargs)


def _check_template(template: str, parameters: Sequence[str]) -> None:
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"{template!r} is not a template: {error}; write {{{{ and }}}} for braces that stay") from None
    names = [(name, spec, conversion) for _, name, spec, conversion in parts if name is not None]
    for name, spec, conversion in names:
        if not name.isidentifier() or conversion is not None or "{" in (spec or ""):
            raise ValueError(
                f"{template!r} may have names of parameters in braces, with a format if need be, such as "
                f"{{account_id}} or {{number:03}}; anything else is for a function"
            )
        if name not in parameters:
            raise ValueError(f"{template!r} names {name!r}, which is not a parameter; {did_you_mean(name, parameters)}")
    if not names:
        check_group(template.format())


def _check_takes(function: Callable[..., Any], signature: inspect.Signature) -> None:
    """Check that ``function`` takes what the actor takes, in the same positions."""
    try:
        takes = inspect.signature(function)
    except (TypeError, ValueError):
        return  # made in C, and says nothing of itself
    parameters = [p for p in signature.parameters.values() if p.kind not in _VARIADIC]
    keywords = {p.name: None for p in parameters if p.kind is Parameter.KEYWORD_ONLY}
    try:
        takes.bind(*[None] * (len(parameters) - len(keywords)), **keywords)
    except TypeError as error:
        taken = signature.replace(return_annotation=Parameter.empty)
        raise ValueError(f"{function!r} must take the actor's arguments {taken}: {error}") from None
