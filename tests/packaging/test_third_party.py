"""A middleware of somebody else's package, by its entry point and by its path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.packaging.conftest import Environment

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "their-tracing"
version = "1.0"

[project.entry-points."jq_actors.middleware"]
their_tracing = "their_tracing:Tracing"
their_mistake = "their_tracing:Mistake"
"""

MODULE = """
import dramatiq
from jq_actors.chain.middleware import JobMiddleware

class Tracing(JobMiddleware):
    def __init__(self, *, sample: float = 1.0) -> None:
        self.sample = sample

class Plain(dramatiq.Middleware):
    pass

class Mistake:
    pass
"""


@pytest.fixture(scope="module")
def environment(
    new_environment: Callable[[], Environment], wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Environment:
    theirs = tmp_path_factory.mktemp("their-tracing")
    (theirs / "pyproject.toml").write_text(PROJECT)
    (theirs / "their_tracing.py").write_text(MODULE)
    environment = new_environment()
    environment.pip_install(str(wheel), str(theirs))
    return environment


@pytest.mark.parametrize(
    ("name", "loaded"),
    [
        ("their_tracing", "Tracing"),
        ("their_tracing:Tracing", "Tracing"),
        ("their_tracing:Plain", "Plain"),
        ("retry", "Retry"),
    ],
)
def test_it_is_loaded(environment: Environment, name: str, loaded: str) -> None:
    code = f"from jq_actors.chain.middleware import load_class; print(load_class({name!r}).__name__)"
    assert environment.ask(code).strip() == loaded


def test_its_name_is_listed_for_who_misspells_one(environment: Environment) -> None:
    told = environment.ask(
        "from jq_actors.chain.middleware import load_class\n"
        "try: load_class('their_traicing')\n"
        "except ValueError as error: print(error)"
    )
    assert "their_tracing" in told


def test_an_entry_point_that_is_no_middleware_is_refused(environment: Environment) -> None:
    told = environment.ask(
        "from jq_actors.chain.middleware import load_class\n"
        "try: load_class('their_mistake')\n"
        "except ValueError as error: print(error)"
    )
    assert told.strip() == "'their_mistake' is not a dramatiq.Middleware class"
