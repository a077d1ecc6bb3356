"""The type checkers of a user's project see our types: in a foreign folder, against the installed wheel."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.packaging.conftest import Environment, run
from tests.support.workers import ROOT

USERS_MODULE = ROOT / "tests" / "typing" / "users_module.py"


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    shutil.copy(USERS_MODULE, tmp_path)
    return tmp_path


def test_mypy_strict(installed: Environment, foreign: Path) -> None:
    mypy = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file",
        "",
        "--cache-dir",
        str(foreign / "cache"),
    ]
    run([*mypy, "--python-executable", str(installed.python), USERS_MODULE.name], cwd=foreign)


def test_pyright_strict(installed: Environment, foreign: Path) -> None:
    settings = json.loads((USERS_MODULE.parent / "pyrightconfig.json").read_text())
    del settings["extraPaths"]
    (foreign / "pyrightconfig.json").write_text(json.dumps(settings))
    run(
        [sys.executable, "-m", "pyright", "--pythonpath", str(installed.python), "--project", "."],
        cwd=foreign,
    )
