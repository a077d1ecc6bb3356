"""Installed in whichever way: what can be imported, and what cannot. Asked of isolated interpreters."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.packaging.conftest import Environment, run
from tests.support.workers import ROOT

Install = Callable[[Environment, Path, Path], None]


def _wheel(environment: Environment, wheel: Path, source: Path) -> None:
    environment.pip_install(str(wheel))


def _pip_editable(environment: Environment, wheel: Path, source: Path) -> None:
    environment.pip_install("--editable", str(source))


def _uv_editable(environment: Environment, wheel: Path, source: Path) -> None:
    uv = [
        sys.executable,
        "-m",
        "uv",
        "--offline",
        "--quiet",
        "pip",
        "install",
        "--no-deps",
        "--no-build-isolation",
    ]
    run([*uv, "--python", str(environment.python), "--editable", str(source)])


@pytest.fixture(scope="module", params=[_wheel, _pip_editable, _uv_editable], ids=lambda way: way.__name__[1:])
def environment(
    request: pytest.FixtureRequest, new_environment: Callable[[], Environment], wheel: Path, source: Path
) -> Environment:
    environment = new_environment()
    install: Install = request.param
    install(environment, wheel, source)
    return environment


def test_both_packages_are_imported_from_where_they_were_installed(environment: Environment, source: Path) -> None:
    places = environment.ask("import jq_actors, jq_middleware; print(jq_actors.__file__, jq_middleware.__file__)")
    for place in places.split():
        assert Path(place).is_relative_to(environment.folder) or Path(place).is_relative_to(source)


@pytest.mark.parametrize("name", ["middleware", "config", "tests", "grafana", "examples", "benchmarks", "docs"])
def test_folders_of_the_repository_are_no_modules(environment: Environment, name: str) -> None:
    assert environment.ask(f"import importlib.util; print(importlib.util.find_spec({name!r}))").strip() == "None"


def test_the_console_script_works(environment: Environment) -> None:
    assert "worker" in environment.script("jq-actors", "--help")


def test_every_registered_middleware_loads_by_its_short_name(environment: Environment) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    registered = project["entry-points"]["jq_actors.middleware"]
    loaded = environment.ask(
        "from jq_actors.chain.middleware import known_names, load_class\n"
        "for name in known_names():\n"
        "    found = load_class(name)\n"
        "    print(name, f'{found.__module__}:{found.__qualname__}')"
    )
    assert dict(line.split() for line in loaded.splitlines()) == registered


def test_importing_it_gives_dramatiq_our_broker(environment: Environment) -> None:
    told = environment.ask("import dramatiq, jq_actors; print(type(dramatiq.get_broker()).__name__)")
    assert told.strip() == "JobBroker"
