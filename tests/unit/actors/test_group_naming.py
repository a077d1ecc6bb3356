"""How a job comes to its group: the actor's template or function, a sending's own word, and what is refused."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jq_actors.actors.arguments import Arguments
from jq_actors.actors.group_naming import GroupNaming
from jq_actors.errors import ActorOptionError, ArgumentError
from jq_actors.model.group_rules import check_group

OWNER = "Actor 'send_mail'"
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=100)


def send_mail(account_id: int, template: str = "hello", *, when: date = date(2026, 1, 1)) -> None: ...


def positional_only(account_id: int, /, *more: int, **extra: str) -> None: ...


def _naming(option: object, fn: Callable[..., Any] = send_mail) -> GroupNaming:
    return GroupNaming(OWNER, option, Arguments("send_mail", fn))


def _told(option: object, fn: Callable[..., Any] = send_mail) -> str:
    with pytest.raises(ActorOptionError) as refused:
        _naming(option, fn)
    start, _, told = str(refused.value).partition("option 'group': ")
    assert start == f"{OWNER}: "
    return told


# -- templates


@pytest.mark.parametrize(
    ("template", "group"),
    [
        ("account-{account_id}", "account-7"),
        ("{template}", "hello"),
        ("{account_id:05}/{when:%Y-%m}", "00007/2026-01"),
        ("all mails", "all mails"),
        ("{{{account_id}}} {template}", "{7} hello"),
        ("Größe 📦 {account_id}", "Größe 📦 7"),
    ],
)
def test_a_template_is_filled_with_the_arguments_and_the_defaults(template: str, group: str) -> None:
    naming = _naming(template)
    assert naming.names_groups
    assert naming([7], {}) == naming([], {"account_id": 7}) == group


@given(st.integers(), TEXT)
def test_whatever_the_arguments_are_a_template_says_them(account_id: int, template: str) -> None:
    assert _naming("{account_id}: {template}")([account_id, template], {}) == f"{account_id}: {template}"


@given(st.lists(st.sampled_from([*"{}[]:!.a0", "account_id", "template"])).map("".join) | st.text())
def test_any_text_names_a_group_or_is_refused(template: str) -> None:
    with suppress(ActorOptionError):
        group = _naming(template)([7], {})
        assert group is not None
        assert check_group(group) == group


def test_the_values_are_those_that_the_actor_will_get() -> None:
    def fn(number: int, when: datetime, price: Decimal, key: UUID) -> None: ...

    arguments, key = Arguments("fn", fn), UUID(int=7)
    naming = GroupNaming(OWNER, "{number} {when:%d.%m.} {price} {key}", arguments)
    for given_number in (7, "7", 7.0):
        sent = arguments.to_json([given_number, datetime(2026, 2, 1, tzinfo=UTC), Decimal("1.50"), key], {})
        assert naming(*sent) == f"7 01.02. 1.50 {key}"


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("account-{acount_id}", "names 'acount_id', which is not a parameter; did you mean account_id?"),
        ("{tenant}", "names 'tenant', which is not a parameter; allowed are account_id, template, when."),
        ("{account_id.real}", "may have names of parameters in braces, with a format if need be, such as {account_id}"),
        ("{template[0]}", "may have names of parameters in braces"),
        ("{account_id!r}", "may have names of parameters in braces"),
        ("{account_id:{template}}", "may have names of parameters in braces"),
        ("{}", "may have names of parameters in braces"),
        ("{0}", "may have names of parameters in braces"),
        ("{account_id", "is not a template: expected '}' before end of string; write {{ and }} for braces that stay"),
        ("account_id}", "is not a template: Single '}' encountered in format string"),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused_at_once(template: str, told: str) -> None:
    assert _told(template).startswith(f"{template!r} {told}")


@pytest.mark.parametrize("template", ["", "x" * 513, "a\0b"], ids=repr)
def test_so_is_one_that_names_no_group(template: str) -> None:
    assert _told(template).startswith("must be a text of 1 to 512 characters without NUL")


def test_variadic_parameters_are_none_of_a_template() -> None:
    assert _naming("{account_id}", positional_only)([7, 1, 2], {"x": "y"}) == "7"
    for name in ("more", "extra"):
        assert "which is not a parameter; allowed are account_id." in _told(f"{{{name}}}", positional_only)


def test_a_value_that_does_not_fit_its_format_is_told_without_it() -> None:
    with pytest.raises(ActorOptionError) as refused:
        _naming("{template:d}")([7, "secret"], {})
    assert str(refused.value) == (
        f"{OWNER}: option 'group' could not name a group: ValueError: Unknown format code 'd' for object of type 'str'"
    )


@pytest.mark.parametrize(
    ("text", "told"), [("", "not ''."), ("x" * 513, "not one of 513."), ("\ud800", "not '\\ud800'.")], ids=len
)
def test_a_name_that_is_none_is_told(text: str, told: str) -> None:
    with pytest.raises(ActorOptionError, match=r"^Actor 'send_mail': option 'group': must be ") as refused:
        _naming(lambda *_, **__: text)([7], {})
    assert str(refused.value).endswith(told)


# -- functions


def test_a_function_gets_the_arguments_with_their_defaults() -> None:
    seen: list[Any] = []

    def by_account(account_id: int, template: str, *, when: date) -> str | None:
        seen.append((account_id, template, when))
        return f"account-{account_id}" if account_id > 1 else None

    naming = _naming(by_account)
    assert naming.names_groups
    assert naming([7], {"when": "2026-02-01"}) == "account-7"
    assert naming([], {"account_id": 1, "template": "x"}) is None
    assert seen == [(7, "hello", date(2026, 2, 1)), (1, "x", date(2026, 1, 1))]


class _Namer:
    def __call__(self, *args: int, **kwargs: str) -> str:
        return f"{args} {kwargs}"


@pytest.mark.parametrize("function", [_Namer(), functools.partial(_Namer(), 1), lambda *a, **k: f"{a} {k}"])
def test_anything_that_can_be_called_is_a_function(function: Callable[..., str]) -> None:
    first = "1, " if isinstance(function, functools.partial) else ""
    assert _naming(function, positional_only)([7, 8], {"x": "y"}) == f"({first}7, 8) {{'x': 'y'}}"


def test_one_that_says_nothing_of_what_it_takes_is_tried() -> None:
    def fn(name: str) -> None: ...

    assert _naming(max, fn)(["b"], {}) == "b"  # max() has no signature
    assert _naming(str, fn)(["b"], {}) == "b"


async def _asynchronous(account_id: int, template: str, *, when: date) -> str:
    return ""


def _too_few(account_id: int) -> str:
    return ""


def _too_many(account_id: int, template: str, more: int, *, when: date) -> str:
    return ""


def _misnamed(account_id: int, template: str, *, day: date) -> str:
    return ""


@pytest.mark.parametrize(
    ("option", "told"),
    [
        (7, "must be a template such as 'account-{account_id}', a function, or None, not 7."),
        (["a"], "must be a template such as 'account-{account_id}', a function, or None, not ['a']."),
        (_asynchronous, "is a coroutine function; it must return the name at once."),
        (_too_few, "must take the actor's arguments (account_id: 'int', template: 'str' = 'hello', "),
        (_too_many, "missing a required argument: 'more'."),
        (_misnamed, "must take the actor's arguments"),
    ],
)
def test_what_can_name_no_group_is_refused_at_once(option: object, told: str) -> None:
    assert told in _told(option)


@pytest.mark.parametrize("returned", [7, b"x", ["a"], "", "a\0b"], ids=repr)
def test_what_a_function_returns_must_be_a_name(returned: Any) -> None:
    with pytest.raises(ActorOptionError, match=r"^Actor 'send_mail': option 'group': must be a text of 1 to 512"):
        _naming(lambda *_, **__: returned)([7], {})


def test_what_a_function_raises_is_told() -> None:
    def by_account(account_id: int, template: str, *, when: date) -> str:
        raise LookupError("no such account")

    with pytest.raises(ActorOptionError, match="could not name a group: LookupError: no such account") as refused:
        _naming(by_account)([7], {})
    assert isinstance(refused.value.__cause__, LookupError)


# -- neither


def test_without_the_option_no_job_has_a_group() -> None:
    naming = _naming(None)
    assert not naming.names_groups
    assert naming(["not looked at"], {}) is None


@pytest.mark.parametrize("args", [[], ["seven"], [7, "hello", 3]], ids=repr)
def test_arguments_that_do_not_fit_name_no_group(args: Sequence[Any]) -> None:
    with pytest.raises(ArgumentError):
        _naming("account-{account_id}")(args, {})
