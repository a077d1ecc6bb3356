"""Find the servers' programs, and install them where that is possible."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

INSTALL_TIMEOUT = 600.0


class MissingProgramError(Exception):
    """A server that the tests need is not installed, and cannot be from here."""


def find_folder(patterns: Sequence[str], program: str, package: str) -> Path:
    """The newest folder among ``patterns`` (globs) with ``program``; if none, install the Debian ``package``.

    Raises:
      MissingProgramError: says what to install.
    """
    found = _look(patterns, program)
    if found is None and _can_install():
        _install(package)
        found = _look(patterns, program)
    if found is None:
        raise MissingProgramError(
            f"{program} is not installed. Install it (Debian: `apt-get install {package}`), "
            "or point JQ_TEST_AMQP_URL / JQ_TEST_DATABASE_URL to servers that tests may use."
        )
    return found


def _look(patterns: Sequence[str], program: str) -> Path | None:
    for pattern in patterns:
        for folder in sorted(glob.glob(pattern), key=_by_version, reverse=True):
            if (Path(folder) / program).exists():
                return Path(folder)
    return None


def _by_version(path: str) -> list[int]:
    return [int("".join(c for c in part if c.isdigit()) or 0) for part in path.split("/")]


def _can_install() -> bool:
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def _install(package: str) -> None:
    done = _apt_get("install", "-y", "--no-install-recommends", package)
    if done.returncode != 0:
        _apt_get("update")
        done = _apt_get("install", "-y", "--no-install-recommends", package)
    if done.returncode != 0:
        raise MissingProgramError(f"`apt-get install {package}` failed:\n{done.stdout}\n{done.stderr}")


def _apt_get(*arguments: str) -> subprocess.CompletedProcess[str]:
    # RUNLEVEL=1: the package's own service is not started; the tests run theirs.
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    return subprocess.run(
        ["apt-get", *arguments], env=env, capture_output=True, text=True, timeout=INSTALL_TIMEOUT, check=False
    )
