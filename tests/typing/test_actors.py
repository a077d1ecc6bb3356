"""Types of actors, by mypy with the project's own strict settings."""

from __future__ import annotations

from pathlib import Path

from mypy import api

ROOT = Path(__file__).parents[2]
CHECKED = Path(__file__).with_name("actors.py")


def test_mypy_sees_right_and_wrong_uses_of_actors(tmp_path: Path) -> None:
    assert _complaints(CHECKED) == []


def test_each_expected_error_is_one_that_mypy_finds(tmp_path: Path) -> None:
    lines = CHECKED.read_text().splitlines()
    wrong = [number for number, line in enumerate(lines, 1) if "# type: ignore[" in line]
    bare = tmp_path / "bare.py"
    bare.write_text("\n".join(line.split("  # type: ignore[")[0] for line in lines))
    found = {int(complaint.split(":")[1]) for complaint in _complaints(bare) if ": error:" in complaint}
    assert sorted(found) == wrong
    assert len(wrong) > 10


def _complaints(path: Path) -> list[str]:
    """What mypy says about this file."""
    out, err, _ = api.run(["--config-file", str(ROOT / "pyproject.toml"), "--no-error-summary", str(path)])
    assert not err
    return [line for line in out.splitlines() if Path(line.split(":")[0]).name == path.name]
