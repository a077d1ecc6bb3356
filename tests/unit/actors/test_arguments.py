"""Arguments: bound as Python does it, converted by their annotations; an error names actor and argument."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jq_actors.actors.arguments import Arguments
from jq_actors.errors import ArgumentError

if TYPE_CHECKING:
    from fractions import Fraction

WHEN = datetime(2026, 11, 24, 3, 28, tzinfo=UTC)


def mail(account_id: int, template: str, when: datetime | None = None, *, price: Decimal = Decimal(1)) -> str:
    return template


def everything(first: int, /, second: date, *rest: date, key: UUID, **extra: Decimal) -> None: ...


def plain(first, second=None): ...  # type: ignore[no-untyped-def]  # what an unannotated actor is


def hidden(value: Fraction, other: datetime) -> Fraction:
    return value


def later(value: DefinedLater) -> DefinedLater:
    return value


@dataclass
class DefinedLater:
    when: date


MAIL = Arguments("send_mail", mail)


def test_the_split_of_the_caller_is_kept() -> None:
    assert MAIL.to_json((7, "hello"), {}) == ([7, "hello"], {})
    assert MAIL.to_json((7,), {"template": "hello"}) == ([7], {"template": "hello"})
    assert MAIL.to_json((), {"template": "hello", "account_id": 7}) == (
        [],
        {"template": "hello", "account_id": 7},
    )


def test_defaults_are_not_sent() -> None:
    assert MAIL.to_json((7, "hello"), {"price": Decimal("1.10")}) == ([7, "hello"], {"price": "1.10"})


def test_arguments_arrive_as_they_were_sent() -> None:
    sent = MAIL.to_json((7, "hello", WHEN), {"price": Decimal("1.10")})
    args, kwargs = MAIL.from_json(*json.loads(json.dumps(sent)))
    assert (args, kwargs) == ((7, "hello", WHEN), {"price": Decimal("1.10")})
    assert type(args) is tuple


def test_every_kind_of_parameter_is_converted() -> None:
    arguments = Arguments("everything", everything)
    args = (1, date(2026, 1, 1), date(2026, 1, 2), date(2026, 1, 3))
    kwargs = {"key": UUID(int=1), "tax": Decimal("0.19"), "first": Decimal(2)}
    sent = arguments.to_json(args, kwargs)
    assert sent == (
        [1, "2026-01-01", "2026-01-02", "2026-01-03"],
        {"key": str(UUID(int=1)), "tax": "0.19", "first": "2"},
    )
    assert arguments.from_json(*sent) == (args, kwargs)


@pytest.mark.parametrize(
    ("args", "kwargs", "told"),
    [
        ((), {}, "missing argument(s) 'account_id', 'template'"),
        ((7,), {}, "missing argument(s) 'template'"),
        ((7,), {"templte": "x"}, "there is no keyword argument 'templte'; did you mean 'template'?"),
        ((7, "x"), {"account_id": 8}, "argument 'account_id' is given twice, by position and by name"),
        ((7, "x", WHEN, 1), {}, "3 positional argument(s) at most, 4 given"),
    ],
    ids=str,
)
def test_arguments_that_do_not_bind_are_refused(args: tuple[Any, ...], kwargs: dict[str, Any], told: str) -> None:
    for convert in (MAIL.to_json, MAIL.from_json, MAIL.adopt):
        with pytest.raises(ArgumentError) as refused:
            convert(args, kwargs)
        assert str(refused.value).startswith("Actor 'send_mail' takes (account_id: ")
        assert str(refused.value).endswith(f": {told}.")
        assert isinstance(refused.value, TypeError)


def _signatures() -> list[Callable[..., Any]]:
    return [
        lambda: 0,
        lambda a, b: 0,
        lambda a, b=1: 0,
        lambda a, /, b: 0,
        lambda a=1, /, b=2: 0,
        lambda *a: 0,
        lambda a, *b: 0,
        lambda *, a: 0,
        lambda *, a=1, b: 0,
        lambda a, /, **b: 0,
        lambda a, *b, c, **d: 0,
        lambda a, b=1, *c, d=2: 0,
    ]


@given(st.sampled_from(_signatures()), st.integers(0, 4), st.sets(st.sampled_from("abcde")))
def test_binding_agrees_with_python(fn: Callable[..., Any], count: int, names: set[str]) -> None:
    arguments = Arguments("any", fn)
    args, kwargs = [0] * count, dict.fromkeys(names, 0)
    refusal = _refusal_of_python(fn, args, kwargs)
    if not refusal:
        assert arguments.to_json(args, kwargs) == (args, kwargs)
    else:
        with pytest.raises(ArgumentError) as refused:
            arguments.to_json(args, kwargs)
        if "missing argument" in str(refused.value):
            assert "missing" in refusal
            refusal = ""  # as a part of a pipeline it may pass
    if not refusal:
        assert arguments.to_json(args, kwargs, partial=True) == (args, kwargs)
    else:
        with pytest.raises(ArgumentError):
            arguments.to_json(args, kwargs, partial=True)


def _refusal_of_python(fn: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> str:
    try:
        fn(*args, **kwargs)
    except TypeError as error:
        return str(error)
    return ""


def test_a_part_of_a_pipeline_may_lack_arguments_but_not_have_wrong_ones() -> None:
    assert MAIL.to_json((7,), {}, partial=True) == ([7], {})
    assert MAIL.to_json((), {"template": "x"}, partial=True) == ([], {"template": "x"})
    with pytest.raises(ArgumentError, match="no keyword argument 'other'"):
        MAIL.to_json((), {"other": 1}, partial=True)


@pytest.mark.parametrize(
    ("args", "kwargs", "told"),
    [
        (
            ("x", "hello"),
            {},
            "argument 'account_id': expected int, got a str (Input should be a valid integer",
        ),
        ((7, "hello", "soon"), {}, "argument 'when': expected datetime.datetime | None, got a str ("),
        ((7, "hello"), {"price": []}, "argument 'price': expected Decimal, got a list ("),
        ((7, "\udead"), {}, "argument 'template': the lone surrogate U+DEAD at index 0 is not a character."),
    ],
    ids=ascii,
)
def test_an_argument_that_does_not_fit_is_named(args: tuple[Any, ...], kwargs: dict[str, Any], told: str) -> None:
    with pytest.raises(ArgumentError) as refused:
        MAIL.to_json(args, kwargs)
    assert str(refused.value).startswith(f"Actor 'send_mail', {told}")


def test_json_that_does_not_fit_today_is_named() -> None:
    with pytest.raises(ArgumentError, match=r"^Actor 'send_mail', argument 'account_id': expected int, got a str \("):
        MAIL.from_json(("seven", "hello"), {})


def test_without_an_annotation_json_passes_and_the_rest_asks_for_one() -> None:
    arguments = Arguments("plain", plain)
    value = {"a": [1, None, {"b": 1.5}]}
    assert arguments.to_json((value,), {}) == ([value], {})
    with pytest.raises(ArgumentError, match=r"argument 'first', at \['day'\]: a date is not a JSON value; annotate it"):
        arguments.to_json(({"day": date(2026, 1, 1)},), {})


def test_an_annotation_that_cannot_be_evaluated_hurts_only_its_own_parameter() -> None:
    arguments = Arguments("hidden", hidden)
    assert arguments.to_json((1, WHEN), {}) == ([1, "2026-11-24T03:28:00Z"], {})
    with pytest.raises(ArgumentError, match=r"argument 'value': .* its annotation 'Fraction' cannot be evaluated"):
        arguments.to_json((WHEN, WHEN), {})
    assert arguments.result_to_json(3) == 3


def test_an_annotation_may_be_defined_after_the_actor() -> None:
    arguments = Arguments("later", later)
    sent = arguments.to_json((DefinedLater(date(2026, 1, 1)),), {})
    assert sent == ([{"when": "2026-01-01"}], {})
    assert arguments.from_json(*sent) == ((DefinedLater(date(2026, 1, 1)),), {})


def test_a_type_of_the_function_around_is_found() -> None:
    @dataclass
    class Local:
        when: date

    def fn(value: Local, module_level: DefinedLater) -> list[Local]:
        return [value]

    arguments = Arguments("fn", fn, locals())
    value = Local(date(2026, 1, 1))
    assert arguments.to_json((value, DefinedLater(date(2026, 1, 2))), {}) == (
        [{"when": "2026-01-01"}, {"when": "2026-01-02"}],
        {},
    )
    assert arguments.result_to_json([value]) == [{"when": "2026-01-01"}]


def test_arguments_of_another_producer_are_json_already_or_not_yet() -> None:
    assert MAIL.adopt((7, "hello", "2026-11-24T03:28:00Z"), {}) == ([7, "hello", "2026-11-24T03:28:00Z"], {})
    assert MAIL.adopt((7, "hello", WHEN), {"price": Decimal("2.0")}) == (
        [7, "hello", "2026-11-24T03:28:00Z"],
        {"price": "2.0"},
    )


def test_bytes_that_are_json_already_are_not_encoded_twice() -> None:
    def upload(data: bytes) -> None: ...

    arguments = Arguments("upload", upload)
    sent = arguments.to_json((b"\xff\x00",), {})
    assert arguments.from_json(*arguments.adopt(*sent)) == ((b"\xff\x00",), {})


def _returns(annotation: Any) -> Arguments:
    def fn() -> None: ...

    fn.__annotations__["return"] = annotation
    return Arguments("report", fn)


@pytest.mark.parametrize(
    ("annotation", "value", "stored"),
    [
        (str, "x", "x"),
        (None, None, None),
        (datetime, WHEN, "2026-11-24T03:28:00Z"),
        (list[UUID], [UUID(int=1)], [str(UUID(int=1))]),
        (Any, {"a": 1}, {"a": 1}),
        (inspect.Parameter.empty, [1], [1]),
        (int, {"not": "an int"}, {"not": "an int"}),
        (None, 3, 3),
    ],
    ids=str,
)
def test_a_result_is_converted_by_its_annotation_or_is_json(annotation: Any, value: Any, stored: Any) -> None:
    assert _returns(annotation).result_to_json(value) == stored


@pytest.mark.parametrize(
    ("annotation", "value", "told"),
    [
        (Any, WHEN, "returned a datetime that cannot be stored: a datetime is not a JSON value; annotate it"),
        (int, WHEN, "returned a datetime that cannot be stored: expected int, got a datetime ("),
        (Any, {"a": {1}}, "returned a dict that cannot be stored, at ['a']: a set is not a JSON value"),
        (float, float("nan"), "returned a float that cannot be stored: nan is not a JSON number"),
    ],
    ids=str,
)
def test_a_result_without_a_json_form_is_refused_by_name(annotation: Any, value: Any, told: str) -> None:
    with pytest.raises(ArgumentError) as refused:
        _returns(annotation).result_to_json(value)
    assert str(refused.value).startswith(f"Actor 'report' {told}")
