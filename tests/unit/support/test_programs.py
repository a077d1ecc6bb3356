"""Servers' programs are found, or what is missing is said: a skip on a laptop, a failure in CI."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import conftest
from tests.support.programs import MissingProgramError, find_folder


@pytest.fixture(autouse=True)
def _not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


def test_the_newest_version_is_taken(tmp_path: Path) -> None:
    for version in ("9", "15", "16"):
        (tmp_path / version / "bin").mkdir(parents=True)
    for version in ("9", "15"):
        (tmp_path / version / "bin" / "initdb").touch()
    assert find_folder([f"{tmp_path}/*/bin"], "initdb", "postgresql") == tmp_path / "15" / "bin"


def test_the_first_pattern_that_has_it_wins(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "initdb").touch()
    assert find_folder([f"{tmp_path}/none", f"{tmp_path}/b", f"{tmp_path}/a"], "initdb", "x") == tmp_path / "b"


def test_what_is_missing_is_named_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(MissingProgramError, match=r"initdb is not installed.*apt-get install postgresql.*JQ_TEST"):
        find_folder([f"{tmp_path}/*"], "initdb", "postgresql")


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_a_missing_server_fails_in_ci_and_skips_loudly_elsewhere(
    ci: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    not_tested = set[str]()
    monkeypatch.setattr(conftest, "not_tested", not_tested)
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="no server"):
        conftest.cannot_test("no server")
    assert not_tested == (set() if ci else {"no server"})
