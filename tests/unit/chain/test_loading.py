"""`jq_actors.chain.loading`: options become instances, and every mistake has its key path."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import dramatiq
import pytest
from dramatiq.middleware import AgeLimit, Retries

from jq_actors.chain.loading import build_middleware
from jq_actors.chain.middleware import JobMiddleware
from jq_actors.config.loading import Config, MiddlewareSpec, load_config
from jq_actors.errors import ConfigError


class Plain(dramatiq.Middleware):
    def __init__(self, *, sample: float = 1.0) -> None:
        if not 0 <= sample <= 1:
            raise ValueError(f"sample must be from 0 to 1, not {sample}")
        self.sample = sample


class Needy(JobMiddleware):
    requires = frozenset({"mw:Plain", "mw:Second"})

    def __init__(self, *, url: str, size: int = 1, **more: int) -> None:
        self.url, self.size, self.more = url, size + 0, more
        if size < 1:
            raise ValueError("too small")


class Second(JobMiddleware):
    pass


class Choosy(JobMiddleware):
    """It depends on its options what it needs."""

    def __init__(self, *, rows: bool) -> None:
        if rows:
            self.requires = {"mw:Second": "rows are kept there"}


class NoMiddleware:
    pass


@pytest.fixture(autouse=True)
def _mw() -> Iterator[None]:
    """The classes of this file, importable as `mw`, as an application's module would be."""
    module = ModuleType("mw")
    vars(module).update(Plain=Plain, Needy=Needy, Second=Second, Choosy=Choosy, NoMiddleware=NoMiddleware)
    sys.modules["mw"] = module
    yield
    del sys.modules["mw"]


def build(*entries: Any) -> list[dramatiq.Middleware]:
    return build_middleware(load_config({"middleware": list(entries)}))


def problems_of(*entries: Any) -> dict[str, str]:
    with pytest.raises(ConfigError) as error:
        build(*entries)
    return {problem.path: problem.message for problem in error.value.problems}


def test_the_chain_is_built_in_order_with_its_options() -> None:
    chain = build("mw:Second", {"mw:Plain": {"sample": 0.1}}, {"mw:Needy": {"url": "x", "size": 2, "other": 3}})
    second, plain, needy = chain
    assert isinstance(second, Second)
    assert isinstance(plain, Plain)
    assert isinstance(needy, Needy)
    assert (plain.sample, needy.url, needy.size, needy.more) == (0.1, "x", 2, {"other": 3})


def test_dramatiqs_own_middleware_are_built() -> None:
    retries, age = build({"dramatiq.middleware:Retries": {"max_retries": 7}}, "dramatiq.middleware:AgeLimit")
    assert isinstance(retries, Retries)
    assert retries.max_retries == 7
    assert isinstance(age, AgeLimit)


def test_no_middleware_is_no_chain() -> None:
    assert build() == []


def test_unknown_missing_and_refused_options_are_told_together() -> None:
    assert problems_of(
        {"mw:Plain": {"sampel": 0.1}},
        "mw:Second",
        {"mw:Needy": {"size": 2}},
        {"dramatiq.middleware:Retries": {"maximum": 1}},
    ) == {
        "middleware[0].mw:Plain.sampel": "unknown option; did you mean sample?",
        "middleware[2].mw:Needy.url": "is required",
        "middleware[3].dramatiq.middleware:Retries.maximum": (
            "unknown option; allowed are max_backoff, max_retries, min_backoff, retry_when"
        ),
    }


def test_an_option_that_takes_none_says_so() -> None:
    assert problems_of({"mw:Second": {"x": 1}}) == {
        "middleware[0].mw:Second.x": "unknown option; nothing is allowed here"
    }


@pytest.mark.parametrize(
    ("entry", "path", "told"),
    [
        ({"mw:Plain": {"sample": 2}}, "mw:Plain.sample", "sample must be from 0 to 1, not 2"),
        ({"mw:Plain": {"sample": "x"}}, "mw:Plain", "'<=' not supported"),
    ],
)
def test_what_a_constructor_refuses_is_told_at_its_option(entry: Any, path: str, told: str) -> None:
    [(found, message)] = problems_of(entry).items()
    assert found == f"middleware[0].{path}"
    assert told in message


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nosuch", "unknown middleware 'nosuch'; known are "),
        ("mw:Nothing", "cannot import 'mw:Nothing'"),
        ("no.such.module:Class", "cannot import 'no.such.module:Class'"),
        ("mw:NoMiddleware", "'mw:NoMiddleware' is not a dramatiq.Middleware class"),
    ],
)
def test_a_name_that_is_no_middleware_is_told(name: str, told: str) -> None:
    [(path, message)] = problems_of("mw:Second", name).items()
    assert path == "middleware[1]"
    assert message.startswith(told)


def test_what_is_required_must_come_earlier() -> None:
    needy = {"mw:Needy": {"url": "x"}}
    assert len(build("mw:Plain", "mw:Second", needy)) == 3
    with pytest.raises(ConfigError) as error:
        build("mw:Plain", needy, "mw:Second")
    assert [str(problem) for problem in error.value.problems] == [
        "middleware[1].mw:Needy: must come after mw:Second, which comes later; move it up"
    ]
    with pytest.raises(ConfigError) as error:
        build(needy)
    assert [str(problem) for problem in error.value.problems] == [
        "middleware[0].mw:Needy: must come after mw:Plain, which is not listed",
        "middleware[0].mw:Needy: must come after mw:Second, which is not listed",
    ]


def test_what_an_instance_requires_is_told_with_the_reason() -> None:
    assert len(build({"mw:Choosy": {"rows": False}})) == 1
    assert len(build("mw:Second", {"mw:Choosy": {"rows": True}})) == 2
    assert problems_of({"mw:Choosy": {"rows": True}}) == {
        "middleware[0].mw:Choosy": "must come after mw:Second, which is not listed: rows are kept there"
    }
    assert problems_of({"mw:Choosy": {"rows": True}}, "mw:Second") == {
        "middleware[0].mw:Choosy": "must come after mw:Second, which comes later; move it up: rows are kept there"
    }


def test_nothing_is_listed_twice() -> None:
    assert problems_of("mw:Second", {"mw:Plain": {}}, {"mw:Plain": {"sample": 0}}) == {
        "middleware[2].mw:Plain": "is listed twice; the first is middleware[1].mw:Plain"
    }


def test_a_config_made_by_hand_is_checked_too() -> None:
    with pytest.raises(ConfigError, match="unknown middleware 'nosuch'"):
        build_middleware(Config(middleware=(MiddlewareSpec(name="nosuch"),)))
