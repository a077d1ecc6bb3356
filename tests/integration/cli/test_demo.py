"""`jq-actors demo`: real documents, a summary, the index as JSON; interrupted, a second run goes on."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.waiting import eventually_sync

ROOT = Path(__file__).parents[3]


@pytest.fixture
def library(tmp_path: Path) -> Path:
    library = tmp_path / "library"
    for shelf, book, text in [
        ("sea", "whale.txt", "Whale whale whale ship ship harpoon."),
        ("sea", "island.md", "Island treasure island pirate ship."),
        ("land", "garden.rst", "Garden garden roses."),
    ]:
        (library / shelf).mkdir(parents=True, exist_ok=True)
        (library / shelf / book).write_text(text)
    (library / "sea" / "picture.png").write_bytes(b"\x89PNG")
    return library


def environment(tmp_path: Path) -> dict[str, str]:
    database = f"sqlite+aiosqlite:///{tmp_path / 'library.db'}"
    return {**os.environ, "PYTHONPATH": str(ROOT), "JQ_DATABASE_URL": database, "COLUMNS": "150"}


def demo(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [str(Path(sys.executable).with_name("jq-actors")), "demo", "--home", str(tmp_path / "home"), *arguments]
    return subprocess.Popen(
        command, cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_it_indexes_a_folder_and_reports_the_broken_document(tmp_path: Path, library: Path) -> None:
    shown, _ = (process := demo(tmp_path, str(library))).communicate(timeout=60)

    assert process.returncode == 0, shown
    index = json.loads((tmp_path / "home" / "index.json").read_text())
    by_name = {Path(entry["path"]).name: entry for entry in index["documents"]}
    assert set(by_name) == {"whale.txt", "island.md", "garden.rst"}
    assert by_name["whale.txt"]["words"] == 6
    assert by_name["whale.txt"]["top"][:2] == ["whale", "ship"]
    assert [(Path(entry["path"]).name, entry["documents"]) for entry in index["folders"]] == [("sea", 2)]
    assert re.search(r"succeeded\D+4\b", shown)
    assert re.search(r"failed\D+1\b", shown)
    assert "UnicodeDecodeError" in shown


def test_the_summary_of_a_folder_comes_after_all_of_its_documents(tmp_path: Path, library: Path) -> None:
    for number in range(40):
        (library / "sea" / f"{number:02}.txt").write_text(f"shell {number} " * 5000)
    (library / "sea" / "00.txt").write_bytes(b"\xff\xfe")  # tried twice, with a pause: the others keep their places
    shown, _ = (process := demo(tmp_path, str(library / "sea"))).communicate(timeout=60)

    assert process.returncode == 0, shown
    index = json.loads((tmp_path / "home" / "index.json").read_text())
    [folder] = [entry for entry in index["folders"] if entry["path"].endswith("sea")]
    assert (folder["documents"], folder["failed"]) == (42, 1)
    with sqlite3.connect(tmp_path / "library.db") as connection:
        started = "SELECT actor FROM orm_jobs WHERE group_key LIKE '%/sea' ORDER BY started_at, seq"
        actors = [actor for (actor,) in connection.execute(started)]
    connection.close()
    assert actors == ["index_document"] * 42 + ["summarize_folder"]


def test_interrupted_it_drains_and_the_next_run_goes_on(tmp_path: Path, library: Path) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for number in range(600):
        (many / f"{number}.txt").write_text(f"document {number} " * 2000)
    first = demo(tmp_path, str(many))
    eventually_sync(lambda: (tmp_path / "home" / "run").exists() and _rows(tmp_path, "succeeded") > 0, 60, "some ends")
    first.send_signal(signal.SIGINT)
    shown, _ = first.communicate(timeout=60)

    assert first.returncode == 130, shown
    assert _rows(tmp_path, "running") == 0
    left = int(re.findall(r"Interrupted: (\d+) jobs are left", shown)[0])
    assert left > 0

    again, _ = (second := demo(tmp_path, str(many))).communicate(timeout=120)
    assert second.returncode == 0, again
    assert f"{left} jobs are left" in again
    assert len(json.loads((tmp_path / "home" / "index.json").read_text())["documents"]) == 600


def _rows(tmp_path: Path, state: str) -> int:
    database = tmp_path / "library.db"
    if not database.exists():
        return 0
    with sqlite3.connect(database, timeout=10) as connection:
        try:
            count = connection.execute("SELECT count(*) FROM orm_jobs WHERE state = ?", (state,)).fetchone()
        except sqlite3.OperationalError:  # the tables are not made yet
            return 0
    connection.close()
    return int(count[0])
