"""What is in the wheel."""

from __future__ import annotations

import zipfile
from pathlib import Path, PurePosixPath


def _names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_it_holds_every_file_of_the_packages_and_no_other(wheel: Path, source: Path) -> None:
    wanted = {
        path.relative_to(base).as_posix()
        for base, package in ((source, "jq_actors"), (source / "middleware", "jq_middleware"))
        for path in (base / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in _names(wheel) if ".dist-info/" not in name} == wanted


def test_it_brings_the_types_and_the_migrations(wheel: Path) -> None:
    names = _names(wheel)
    assert {"jq_actors/py.typed", "jq_middleware/py.typed"} <= names
    migrations = PurePosixPath("jq_actors/store/schema/migrations")
    assert [name for name in names if PurePosixPath(name).parent == migrations / "versions"]
