"""A new SQLite file that several processes open at the same moment."""

from __future__ import annotations

import asyncio
import multiprocessing
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from jq_actors.clock import SystemClock
from jq_actors.events import Events
from jq_actors.store.database.database import Database

PROCESSES, FILES = 4, 200


async def _open_all(folder: Path, together: Any, errors: Any) -> None:
    for number in range(FILES):
        url = f"sqlite+aiosqlite:///{folder / str(number)}.db"
        database = Database(url, pool_size=1, clock=SystemClock(), events=Events())
        await database._connected(unready=True)  # so that all connect at the same moment
        together.wait()
        try:
            await database.read(lambda c: c.scalar(sa.text("SELECT count(*) FROM sqlite_schema")), unready=True)
        except Exception as error:  # noqa: BLE001 - told to the test
            errors.put(f"file {number}: {error!r}")
        await database.close(1)
    errors.put(None)


def _run(*arguments: Any) -> None:
    asyncio.run(_open_all(*arguments))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_nobody_is_refused_while_another_sets_its_journal_mode(tmp_path: Path) -> None:
    """SQLite refuses that at once, without waiting for its busy timeout: about one in fifty."""
    context = multiprocessing.get_context("fork")
    together, told = context.Barrier(PROCESSES), context.SimpleQueue()
    children = [context.Process(target=_run, args=(tmp_path, together, told)) for _ in range(PROCESSES)]
    for child in children:
        child.start()
    errors = list[str]()
    for _ in range(PROCESSES):
        while (error := told.get()) is not None:
            errors.append(error)
    for child in children:
        child.join()
    assert errors == []
    assert {_journal_mode(file) for file in tmp_path.glob("*.db")} == {"wal"}


def _journal_mode(file: Path) -> str:
    with closing(sqlite3.connect(file)) as connection:
        mode: str = connection.execute("PRAGMA journal_mode").fetchone()[0]
        return mode
