"""The built package, and environments that it is installed in.

An environment sees this one's third-party packages by a ``.pth`` line: nothing is downloaded, and the
editable install of this repository, which hangs on a ``.pth`` file of its own, stays invisible.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.workers import ROOT

SOURCES = ("jq_actors", "middleware", "pyproject.toml", "README.md")
OFFLINE = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check")


@dataclass(frozen=True)
class Environment:
    """A virtual environment in ``folder``."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def pip_install(self, *what: str) -> None:
        """Install with pip, without dependencies and without the network."""
        run([sys.executable, "-m", "pip", "--python", str(self.python), "install", *OFFLINE, *what])

    def ask(self, code: str) -> str:
        """What ``code`` prints in its isolated interpreter: neither working directory nor PYTHONPATH."""
        return run([str(self.python), "-I", "-W", "error", "-c", code], cwd=self.folder)

    def script(self, name: str, *arguments: str) -> str:
        """What a console script prints."""
        return run([str(self.folder / "bin" / name), *arguments], cwd=self.folder)


def run(command: list[str], cwd: Path | None = None) -> str:
    """Run to the end; returns what it printed, errors too. An exit code other than 0 fails the test."""
    done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        pytest.fail(f"{' '.join(command)} exited with {done.returncode}:\n{done.stdout}", pytrace=False)
    return done.stdout


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the build reads: builds and editable installs do not touch the repository."""
    folder = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution, as an index would do."""
    folder = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(source)])
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def new_environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Environment]:
    """Makes empty environments."""

    def make() -> Environment:
        environment = Environment(tmp_path_factory.mktemp("environment"))
        venv.create(environment.folder, with_pip=False, symlinks=True)
        (site_packages,) = environment.folder.glob("lib/python*/site-packages")
        # Read in the order of names: an editable install's own line needs `editables` from there.
        (site_packages / "0_third_party.pth").write_text(sysconfig.get_path("purelib") + "\n")
        return environment

    return make


@pytest.fixture(scope="session")
def installed(new_environment: Callable[[], Environment], wheel: Path) -> Environment:
    """An environment with the wheel."""
    environment = new_environment()
    environment.pip_install(str(wheel))
    return environment
