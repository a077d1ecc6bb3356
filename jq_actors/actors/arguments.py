"""The arguments and the result of one actor: bound to its signature, converted to plain JSON and back."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from inspect import Parameter
from typing import Any

from jq_actors.errors import ArgumentError

from .annotations import Unresolved, names_around, resolve
from .conversion import Converter, converter_for
from .plain_json import ConversionError, check_json, is_json, with_article

_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


class Arguments:
    """The parameters and the result of an actor. Made once per actor; the converters are made at the first use.

    Positional and keyword arguments stay split as the caller passed them, so that a plain Dramatiq worker
    can call the function with the JSON values.

    Parameters:
      actor_name: the actor's name, for errors.
      fn: the actor's function.
      local_names: names of the function that encloses ``fn``: a string annotation may refer to a type defined there.
    """

    def __init__(self, actor_name: str, fn: Callable[..., Any], local_names: Mapping[str, Any] | None = None) -> None:
        self._actor_name, self._names = actor_name, names_around(fn)
        self.signature = inspect.signature(fn)
        self._parameters = list(self.signature.parameters.values())
        positional = [p for p in self._parameters if p.kind in _POSITIONAL]
        self._most = len(positional)
        self._least = sum(p.default is Parameter.empty for p in positional)
        self._index = {p.name: i for i, p in enumerate(positional) if p.kind is Parameter.POSITIONAL_OR_KEYWORD}
        self._keyword_only = {p.name: p for p in self._parameters if p.kind is Parameter.KEYWORD_ONLY}
        self._needs_keywords = any(p.default is Parameter.empty for p in self._keyword_only.values())
        kinds = {p.kind: p.name for p in self._parameters}
        self._rest, self._extra = kinds.get(Parameter.VAR_POSITIONAL), kinds.get(Parameter.VAR_KEYWORD)
        self._annotations = {p.name: p.annotation for p in self._parameters}
        self._annotations["return"] = self.signature.return_annotation
        if local_names is not None:  # evaluated now: at the first use they are gone or changed
            found = {name: self._resolved(name, local_names) for name in self._annotations}
            self._annotations |= {k: kind for k, kind in found.items() if not isinstance(kind, Unresolved)}

    def to_json(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], *, partial: bool = False
    ) -> tuple[list[Any], dict[str, Any]]:
        """The arguments as plain JSON.

        Parameters:
          partial: whether arguments may still be missing: a Dramatiq pipeline adds one later.

        Raises:
          ArgumentError: the arguments do not bind, or one has no JSON form; names the actor and the argument.
        """
        self._check_binding(args, kwargs, partial=partial)
        return self._each(_Slot.to_json, args, kwargs)

    def adopt(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of a message that jq_actors did not make, as plain JSON; some of them may already be JSON.

        Dramatiq's pipelines add what an actor returned, unconverted, to arguments that are JSON.

        Raises:
          ArgumentError: the arguments do not bind, or one has no JSON form.
        """
        self._check_binding(args, kwargs, partial=False)
        return self._each(_Slot.adopt, args, kwargs)

    def from_json(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments to call the actor with, from their JSON.

        Raises:
          ArgumentError: the arguments do not bind to the current signature, or one does not fit its annotation.
        """
        self._check_binding(args, kwargs, partial=False)
        positional, named = self._each(_Slot.from_json, args, kwargs)
        return tuple(positional), named

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> inspect.BoundArguments:
        """The value of each parameter of the actor, from the JSON of its arguments, with defaults filled in.

        Raises:
          ArgumentError: as in `from_json`.
        """
        positional, named = self.from_json(args, kwargs)
        bound = self.signature.bind(*positional, **named)
        bound.apply_defaults()
        return bound

    def result_to_json(self, value: Any) -> Any:
        """The actor's return value as plain JSON: converted by the return annotation, or unchanged if it is JSON.

        Raises:
          ArgumentError: the value has no JSON form; names the actor and the type.
        """
        try:
            return self._returns.to_json(value)
        except ConversionError as error:
            try:
                check_json(value)
            except ConversionError:
                raise self._error(
                    f"returned {with_article(type(value))} that cannot be stored{error.description}"
                ) from error
            return value

    def _each(
        self, convert: Callable[[_Slot, Any], Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        slots = self._slots
        return (
            [convert(slot, value) for slot, value in zip(slots.of_positions(len(args)), args, strict=False)],
            {name: convert(slots.of_name(name), value) for name, value in kwargs.items()},
        )

    def _check_binding(self, args: Sequence[Any], kwargs: Mapping[str, Any], *, partial: bool) -> None:
        count = len(args)
        if not kwargs and self._least <= count <= self._most and not self._needs_keywords:
            return
        if count > self._most and self._rest is None:
            raise self._unbound(f"{self._most} positional argument(s) at most, {count} given")
        for name in kwargs:
            if name in self._index:
                if self._index[name] < count:
                    raise self._unbound(f"argument {name!r} is given twice, by position and by name")
            elif name not in self._keyword_only and self._extra is None:
                raise self._unbound(f"there is no keyword argument {name!r}{self._meant(name)}")
        missing = [] if partial else [repr(name) for name in self._missing(count, kwargs)]
        if missing:
            raise self._unbound(f"missing argument(s) {', '.join(missing)}")

    def _missing(self, count: int, kwargs: Mapping[str, Any]) -> Iterable[str]:
        for index, parameter in enumerate(self._parameters):
            if parameter.default is not Parameter.empty or parameter.name in (self._rest, self._extra):
                continue
            by_position = parameter.kind in _POSITIONAL and index < count
            by_name = parameter.kind is not Parameter.POSITIONAL_ONLY and parameter.name in kwargs
            if not by_position and not by_name:
                yield parameter.name

    def _meant(self, name: str) -> str:
        close = difflib.get_close_matches(name, [*self._index, *self._keyword_only], n=1)
        return f"; did you mean {close[0]!r}?" if close else ""

    def _unbound(self, text: str) -> ArgumentError:
        return self._error(f"takes {self.signature.replace(return_annotation=Parameter.empty)}: {text}")

    def _error(self, text: str) -> ArgumentError:
        return ArgumentError(f"Actor {self._actor_name!r} {text}.")

    @cached_property
    def _slots(self) -> _Slots:
        slots = {
            p.name: _Slot(self._actor_name, p.name, converter_for(self._resolved(p.name))) for p in self._parameters
        }
        return _Slots(
            [slots[p.name] for p in self._parameters if p.kind in _POSITIONAL],
            {name: slots[name] for name in (*self._index, *self._keyword_only)},
            slots.get(self._rest or ""),
            slots.get(self._extra or ""),
        )

    @cached_property
    def _returns(self) -> Converter:
        return converter_for(self._resolved("return"))

    def _resolved(self, name: str, local_names: Mapping[str, Any] | None = None) -> Any:
        return resolve(self._annotations[name], self._names, local_names)


@dataclass(frozen=True, slots=True)
class _Slot:
    """Converts one parameter, and puts its name into errors."""

    actor_name: str
    name: str
    converter: Converter

    def to_json(self, value: Any) -> Any:
        try:
            return self.converter.to_json(value)
        except ConversionError as error:
            raise self._error(error) from error

    def adopt(self, value: Any) -> Any:
        return value if is_json(value) else self.to_json(value)

    def from_json(self, value: Any) -> Any:
        try:
            return self.converter.from_json(value)
        except ConversionError as error:
            raise self._error(error) from error

    def _error(self, error: ConversionError) -> ArgumentError:
        return ArgumentError(f"Actor {self.actor_name!r}, argument {self.name!r}{error.description}.")


@dataclass(frozen=True, slots=True)
class _Slots:
    positional: list[_Slot]
    named: dict[str, _Slot]
    rest: _Slot | None
    extra: _Slot | None

    def of_positions(self, count: int) -> list[_Slot]:
        """The slots of at least the first ``count`` positions."""
        if self.rest is None or count <= len(self.positional):
            return self.positional
        return self.positional + [self.rest] * (count - len(self.positional))

    def of_name(self, name: str) -> _Slot:
        slot = self.named.get(name, self.extra)
        assert slot is not None, "checked by the binding"
        return slot
