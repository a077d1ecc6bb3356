"""Resolves annotations: evaluates strings one by one, in the scope of the function that has them."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)


@dataclass(frozen=True, slots=True)
class Unresolved:
    """An annotation that cannot be evaluated here, such as a name imported only under ``TYPE_CHECKING``."""

    source: str
    reason: str


def resolve(annotation: Any, names: Mapping[str, Any], local_names: Mapping[str, Any] | None = None) -> Any:
    """``annotation`` with all strings in it evaluated, or `Unresolved` if that fails.

    Parameters:
      annotation: a type, a string, or a type that contains strings (``list["Order"]``).
      names: the module's names.
      local_names: names of the enclosing function, which take precedence.
    """
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        return get_type_hints(holder, dict(names), dict(local_names or {}), include_extras=True)["it"]
    except Exception as error:  # noqa: BLE001 - evaluates the user's text, which may raise anything
        return Unresolved(str(annotation), f"{type(error).__name__}: {error}")


def names_around(fn: Callable[..., Any]) -> Mapping[str, Any]:
    """The names of the module that defines ``fn``: a function, a method, or an object with ``__call__``."""
    defined = inspect.unwrap(fn)
    names: Mapping[str, Any] | None = getattr(defined, "__globals__", None)
    if names is None:
        module = sys.modules.get(defined.__module__)
        names = {} if module is None else vars(module)
    return names


def annotation_text(annotation: Any) -> str:
    """``annotation`` as it is written in source code."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return "None" if annotation is type(None) else annotation.__name__
    return str(annotation).replace("typing.", "")


if sys.version_info >= (3, 12):

    def for_pydantic(annotation: Any) -> Any:
        """``annotation`` unchanged: pydantic accepts it."""
        return annotation

else:
    import typing_extensions

    def for_pydantic(annotation: Any) -> Any:
        """``annotation`` with each ``typing.TypedDict`` in it replaced by its counterpart from ``typing_extensions``.

        Before Python 3.12 pydantic refuses ``typing.TypedDict``: https://errors.pydantic.dev/2.14/u/typed-dict-version
        """
        if is_typeddict(annotation) and type(annotation).__module__ == "typing":
            return _typed_dict(annotation)
        origin, inner = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            return Annotated[for_pydantic(inner[0]), *inner[1:]]
        if origin is None or origin is Literal:
            return annotation
        replaced = tuple(for_pydantic(part) for part in inner)
        if replaced == inner:
            return annotation
        return Union[replaced] if origin in (Union, types.UnionType) else origin[replaced]  # noqa: UP007 - built at run time

    def _typed_dict(original: Any) -> Any:
        def field(name: str, kind: Any) -> Any:
            if get_origin(kind) in (
                Required,
                NotRequired,
            ):  # __required_keys__ does not see it if it was a string
                return get_origin(kind)[for_pydantic(get_args(kind)[0])]
            return (
                Required[for_pydantic(kind)] if name in original.__required_keys__ else NotRequired[for_pydantic(kind)]
            )

        hints = get_type_hints(original, include_extras=True)
        fields = {name: field(name, kind) for name, kind in hints.items()}
        return typing_extensions.TypedDict(original.__name__, fields)  # type: ignore[operator]  # made at run time
