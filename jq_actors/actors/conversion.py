"""Converts values to plain JSON and back by their annotation: a value arrives as it was sent, or is refused.

Values of plain JSON types pass after an exact check of their type. All others go through pydantic, leniently (``"7"``
for an int is 7); then the JSON is read back and compared, because some values can be written but not read:
a datetime sent as ``str | datetime`` would arrive as a str, a secret as asterisks, a subclass as its base.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import types
from collections.abc import Callable
from datetime import datetime
from enum import Enum
from functools import cached_property
from typing import Any, Literal, Protocol, Union, cast, get_args, get_origin

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import to_json

from .annotations import Unresolved, annotation_text, for_pydantic
from .plain_json import MAX_INT_BITS, ConversionError, check_json, is_json, with_article


class Converter(Protocol):
    """Converts the values of one annotation. Both directions raise `ConversionError`."""

    def to_json(self, value: Any) -> Any:
        """``value`` as plain JSON."""
        ...

    def from_json(self, value: Any) -> Any:
        """The value that ``to_json`` was given, from what it returned."""
        ...


def converter_for(annotation: Any) -> Converter:
    """The converter for ``annotation``: a type, ``inspect.Parameter.empty``, or `Unresolved`."""
    if annotation is inspect.Parameter.empty or annotation is Any or annotation is object:
        return JsonConverter("annotate it with its type to have it converted")
    if isinstance(annotation, Unresolved):
        return JsonConverter(f"its annotation {annotation.source!r} cannot be evaluated ({annotation.reason})")
    converter = TypedConverter(annotation)
    if converter.is_exact:
        return converter
    try:
        converter.adapter  # noqa: B018 - built now, to find out whether it can be
    except Exception as error:  # noqa: BLE001 - pydantic runs the type's own hooks
        reason = str(error).splitlines()[0]
        return JsonConverter(f"its annotation {annotation_text(annotation)} has no JSON form ({reason})")
    return converter


class JsonConverter:
    """Passes JSON values unchanged; refuses other types with ``hint``."""

    def __init__(self, hint: str) -> None:
        self._hint = hint

    def to_json(self, value: Any) -> Any:
        """``value``, after a check that it is plain JSON."""
        try:
            check_json(value)
        except ConversionError as error:
            if error.foreign:
                error.text = f"{error.text}; {self._hint}"
            raise
        return value

    def from_json(self, value: Any) -> Any:
        """``value``, unchanged."""
        return value


class TypedConverter:
    """Converts values of a type that pydantic knows."""

    def __init__(self, annotation: Any) -> None:
        self._annotation = annotation
        self._is_exact = _exact_check(annotation)

    @property
    def is_exact(self) -> bool:
        """Whether the type consists of plain JSON types only."""
        return self._is_exact is not None

    @cached_property
    def adapter(self) -> TypeAdapter[tuple[Any]]:
        """Pydantic's view of the type, in a one-tuple, so that ``config`` applies to models and dataclasses too."""
        config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", hide_input_in_errors=True)
        one_tuple = cast("type[tuple[Any]]", types.GenericAlias(tuple, (for_pydantic(self._annotation),)))
        return TypeAdapter(one_tuple, config=config)

    def to_json(self, value: Any) -> Any:
        """``value`` as plain JSON."""
        if self._is_exact is not None and self._is_exact(value):
            return value
        try:
            (sent,) = self.adapter.validate_python((value,))
            # By field name both ways: an alias for reading may differ from the one for writing.
            (dumped,) = self.adapter.dump_python(
                (sent,), mode="json", by_alias=False, round_trip=True, warnings="error"
            )
        except Exception as error:  # the user's validators and serializers may raise anything
            raise self._conversion_error(value, error) from error
        check_json(dumped)
        _check_same(sent, self.from_json(dumped))
        return dumped

    def from_json(self, value: Any) -> Any:
        """The value that ``to_json`` was given, from what it returned."""
        if self._is_exact is not None and self._is_exact(value):
            return value
        try:
            # In JSON mode bytes are base64, and text may stand for a datetime where types are strict.
            return self.adapter.validate_json(to_json((value,)), by_alias=True, by_name=True)[0]
        except Exception as error:  # as above
            raise self._conversion_error(value, error) from error

    def _conversion_error(self, value: Any, error: Exception) -> ConversionError:
        expected = f"expected {annotation_text(self._annotation)}, got {with_article(type(value))}"
        return ConversionError(f"{expected} ({_reason(error)})")


def _reason(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return f"{type(error).__name__}: {error}"
    listed = []
    for detail in error.errors(include_url=False, include_context=False, include_input=False)[:_MAX_LISTED]:
        where = ".".join(str(step) for step in detail["loc"][1:])  # without the one-tuple
        listed.append(f"{where}: {detail['msg']}" if where else detail["msg"])
    more = error.error_count() - len(listed)
    return "; ".join(listed) + (f"; and {more} more" if more > 0 else "")


_MAX_LISTED = 3
"""The most problems of one value that an error lists."""


def _exact_check(annotation: Any) -> Callable[[Any], bool] | None:
    """The check for values that pass unchanged; ``None`` if the type has parts that are not plain JSON types."""
    while hasattr(annotation, "__supertype__"):  # a NewType
        annotation = annotation.__supertype__
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is None:
        return _EXACT.get(annotation)
    if origin is Literal:
        return _exact_literal(inner)
    parts = [_exact_check(part) for part in inner]
    checks = [check for check in parts if check is not None]
    if len(checks) < len(parts):
        return None
    if origin in (Union, types.UnionType):
        return lambda value: any(check(value) for check in checks)
    if origin is list:
        return lambda value: type(value) is list and all(map(checks[0], value))
    if origin is dict and inner[0] is str:
        return lambda value: type(value) is dict and all(map(_is_text, value)) and all(map(checks[1], value.values()))
    return None


def _exact_literal(allowed: tuple[Any, ...]) -> Callable[[Any], bool] | None:
    if any(isinstance(value, Enum | bytes) for value in allowed):
        return None
    return lambda value: any(type(value) is type(one) and value == one for one in allowed)


def _is_text(value: Any) -> bool:
    if type(value) is not str:
        return False
    if value.isascii():
        return True
    return is_json(value)


_EXACT: dict[Any, Callable[[Any], bool]] = {
    str: _is_text,
    int: lambda value: type(value) is int and value.bit_length() <= MAX_INT_BITS,
    float: lambda value: type(value) is float and math.isfinite(value),
    bool: lambda value: value is True or value is False,
    None: lambda value: value is None,
    type(None): lambda value: value is None,
    Any: is_json,
    list: lambda value: type(value) is list and is_json(value),
    dict: lambda value: type(value) is dict and is_json(value),
}


def _check_same(sent: Any, arrived: Any) -> None:
    """Check that a value came back unchanged, with the same type, and the same types of everything in it.

    Raises:
      ConversionError: names the first difference.
    """
    kind = type(sent)
    if type(arrived) is not kind:
        raise ConversionError(
            f"{with_article(kind)} would arrive as {with_article(type(arrived))}; annotate it more exactly"
        )
    parts = _parts(sent)
    if parts is None:
        # A type without its own equality compares by identity, which proves nothing here.
        has_equality = any("__eq__" in vars(base) for base in kind.__mro__[:-1])
        if has_equality and not _is_equal(sent, arrived):
            raise ConversionError(f"{with_article(kind)} would arrive with another value")
        return
    arrived_parts = _parts(arrived) or {}
    if parts.keys() != arrived_parts.keys():
        raise ConversionError(f"{with_article(kind)} would arrive with other content")
    for key, part in parts.items():
        try:
            _check_same(part, arrived_parts[key])
        except ConversionError as error:
            raise error.inside(key) from None


def _is_equal(sent: Any, arrived: Any) -> bool:
    if sent == arrived:
        return True
    if not (isinstance(sent, datetime) and isinstance(arrived, datetime)):
        return False
    # In an hour that the clock repeats, Python considers a time unequal to every time of another zone (PEP 495).
    is_same_clock = sent.replace(tzinfo=None) == arrived.replace(tzinfo=None)
    return is_same_clock and sent.utcoffset() == arrived.utcoffset()


def _parts(value: Any) -> dict[Any, Any] | None:
    """The parts of ``value`` by key, index or field; ``None`` if it is to be compared as a whole."""
    if isinstance(value, list | tuple):
        return dict(enumerate(value))
    if isinstance(value, dict):
        return value
    if isinstance(value, BaseModel):
        return dict(value)
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.compare}
    return None
