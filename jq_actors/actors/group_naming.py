"""Names a job's group by the actor's option ``group``, and checks which options a group excludes."""

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
    """The default of the option ``group`` when a job is sent; ``None`` would mean that the job has no group."""

    OF_ACTOR = "the actor's"


OF_ACTOR = OfActor.OF_ACTOR


class GroupNaming:
    """Names the groups of one actor's jobs.

    Parameters:
      owner: the subject of an error's sentence, such as ``Actor 'send_mail'``.
      option: a template of text and names of parameters in braces, each with an optional format
        (``"account-{account_id}"``, ``"day-{when:%Y-%m-%d}"``); a function that takes the actor's arguments and
        returns the name, or ``None``; or ``None`` if no job has a group.
      arguments: the actor's arguments.

    Raises:
      ActorOptionError: the option could never name a group.
    """

    def __init__(self, owner: str, option: object, arguments: Arguments) -> None:
        self._owner, self._arguments = owner, arguments
        try:
            self._name = None if option is None else _namer(option, arguments.signature)
        except ValueError as error:
            raise ActorOptionError(f"{owner}: option 'group': {error}.") from error

    @property
    def names_groups(self) -> bool:
        """Whether jobs of the actor can get a group from this option."""
        return self._name is not None

    def __call__(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
        """The group of a job with these arguments (as JSON), from the values that the actor will receive.

        Raises:
          ActorOptionError: the template does not fit the values, the function raised, or the result is invalid.
          ArgumentError: the arguments do not bind, or one does not fit its annotation.
        """
        if self._name is None:
            return None
        bound = self._arguments.bind(args, kwargs)
        try:
            group = self._name(bound)
        except Exception as error:  # raised by the user's function, or by the formatting of a value
            raise ActorOptionError(
                f"{self._owner}: option 'group' could not name a group: {type(error).__name__}: {error}"
            ) from error
        return checked_group(self._owner, group)


def checked_group(owner: str, group: object) -> str | None:
    """Return ``group`` if it is ``None`` or a valid group name.

    Raises:
      ActorOptionError: it is not.
    """
    if group is None:
        return None
    try:
        return check_group(group)
    except ValueError as error:
        raise ActorOptionError(f"{owner}: option 'group': {error}.") from error


def check_no_priority(owner: str, priority: int) -> None:
    """Check that a job in a group has no priority, which would break the group's order.

    Raises:
      ActorOptionError: it has one.
    """
    if priority:
        raise ActorOptionError(
            f"{owner}: priority {priority} in a group, whose jobs run in order; give priority 0, or group=None."
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
        return  # implemented in C, without a signature
    parameters = [p for p in signature.parameters.values() if p.kind not in _VARIADIC]
    keywords = {p.name: None for p in parameters if p.kind is Parameter.KEYWORD_ONLY}
    try:
        takes.bind(*[None] * (len(parameters) - len(keywords)), **keywords)
    except TypeError as error:
        taken = signature.replace(return_annotation=Parameter.empty)
        raise ValueError(f"{function!r} must take the actor's arguments {taken}: {error}") from None
