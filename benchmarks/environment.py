"""The peers' virtual environment: created if missing, recreated when the requirements change."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

from .settings import FOLDER

REQUIREMENTS = Path(__file__).with_name("peers-requirements.txt")


def make_peers_environment(python: Path) -> None:
    """Create the environment of ``python`` if needed; the first time this needs a package index."""
    home = python.parent.parent
    stamp = home / REQUIREMENTS.name
    if stamp.exists() and stamp.read_text() == REQUIREMENTS.read_text():
        return
    print(f"making {home.relative_to(FOLDER.parent)} for the peers", file=sys.stderr)
    venv.create(home, clear=True, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", REQUIREMENTS], check=True)
    # Last, so that an interrupted installation starts over.
    shutil.copy(REQUIREMENTS, stamp)
