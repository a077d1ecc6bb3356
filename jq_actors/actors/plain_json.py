"""Plain JSON: values that arrive exactly as they were sent. The check says why another value would not."""

from __future__ import annotations

import math
from typing import Any

MAX_DEPTH = 100
"""The deepest nesting of containers, far below what the standard library's JSON reader can handle."""

MAX_INT_BITS = 14_000
"""Python refuses to read or write integers of more than 4300 digits (``sys.set_int_max_str_digits``)."""


class ConversionError(Exception):
    """A value that cannot be sent. Internal: `Arguments` raises it anew with the names of actor and argument.

    ``path`` says where in the argument the value is, ``foreign`` whether JSON does not have its type.
    """

    def __init__(self, text: str, *, foreign: bool = False) -> None:
        self.text, self.foreign = text, foreign
        self.path = ""
        super().__init__(text)

    @property
    def description(self) -> str:
        """Where and why, to be appended to the name of the argument."""
        return f", at {self.path}: {self.text}" if self.path else f": {self.text}"

    def inside(self, key: int | str) -> ConversionError:
        """The same error, with the path extended by the container's ``key``."""
        self.path = f"[{key!r}]{self.path}"
        return self


def check_json(value: Any, depth: int = 0) -> None:
    """Check that ``value`` consists only of str, int, float, bool, None, list and dict with str keys.

    Subclasses are refused like all other types: they would arrive as their base class.

    Raises:
      ConversionError: says what is wrong, and where.
    """
    kind = type(value)
    if kind is str:
        check_text(value)
    elif kind is int:
        if value.bit_length() > MAX_INT_BITS:
            raise ConversionError("an integer of more than 4000 digits cannot be read back")
    elif kind is float:
        if not math.isfinite(value):
            raise ConversionError(f"{value} is not a JSON number")
    elif kind is list or kind is dict:
        if depth == MAX_DEPTH:
            raise ConversionError(f"it is nested deeper than {MAX_DEPTH} levels, or holds itself")
        _check_items(value, depth + 1)
    elif value is not None and kind is not bool:
        raise ConversionError(f"{with_article(kind)} is not a JSON value", foreign=True)


def is_json(value: Any) -> bool:
    """Whether `check_json` accepts ``value``."""
    try:
        check_json(value)
    except ConversionError:
        return False
    return True


def check_text(text: str) -> None:
    """Check that ``text`` can be encoded.

    Raises:
      ConversionError: it has a lone surrogate (half a character), which databases and other languages refuse.
    """
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConversionError(
            f"the lone surrogate U+{ord(text[error.start]):04X} at index {error.start} is not a character"
        ) from None


def with_article(kind: type) -> str:
    """The name of a type with its article: ``a datetime``, ``an int``."""
    name = kind.__name__
    vowel = name[0].lower() in "aeiou" and not name.isupper()  # a UUID
    return f"{'an' if vowel else 'a'} {name}"


def _check_items(container: list[Any] | dict[Any, Any], depth: int) -> None:
    items = enumerate(container) if isinstance(container, list) else container.items()
    key: Any = None
    try:
        for key, item in items:
            if type(key) is str:
                check_text(key)
            elif type(container) is dict:
                raise ConversionError(
                    f"{with_article(type(key))} is not a key of a JSON object; only a str is", foreign=True
                )
            check_json(item, depth)
    except ConversionError as error:
        raise error.inside(key) from None
